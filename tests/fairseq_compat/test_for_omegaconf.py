"""A node that is set into a configuration is copied alone; the configurations are the same."""

import pytest

SET_A_NODE = """
from omegaconf import OmegaConf, nodes

tree = OmegaConf.create({"part": {"depth": 3, "names": ["a", "${part.depth}"]}, "rest": {str(n): n for n in range(50)}})
other = OmegaConf.create({"part": {"depth": 1}})
copied, copy = [], nodes.ValueNode._deepcopy_impl
nodes.ValueNode._deepcopy_impl = lambda self, result, memo: (copied.append(self), copy(self, result, memo))[1]
other.part = tree.part
count = len(copied)
other.part.depth = 4
same = tree.part.depth == 3 and other.part.names[1] == 4 and other.part._get_parent() is other
report([count, same and OmegaConf.to_container(other), tree.part._get_parent() is tree])
"""


@pytest.mark.parametrize(("without", "copied"), [(["copy_without_parents"], 53), ([], 3)])
def test_set_nodes_are_copied_without_the_tree_above_them(run_python, without, copied):
    outcome, stderr = run_python(SET_A_NODE, without=without)
    assert outcome == [copied, {"part": {"depth": 4, "names": ["a", "${part.depth}"]}}, True], stderr
