"""Attacks the package at random for a while: kills, full disks, damaged and hostile files. ``make soak`` runs this.

Prints the seed first and a table at the end; the exit code is 1 if anything was lost. Findings are folders in
soak-findings/, each with the line that repeats it.
"""

import argparse
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from artifacts import Artifacts
from disks import Disks
from kills import CorpusKills, TrainingKills
from media import Media
from pairs import Pairs
from tally import Result, Tally, merge, table
from workshop import ROOT, Workshop

WORKERS = 2
MEDIA = {"audio", "images", "video"}  # need no undisturbed runs
RECORD_EVERY = 5  # seconds
ATTACKS = {  # name: what makes it, its share of the time, and the attempts of a short run
    "train-kills": (TrainingKills, 0.22, 1),
    "rank-kills": (lambda shop: TrainingKills(shop, ranks=2), 0.2, 1),
    "corpus-kills": (CorpusKills, 0.15, 2),
    "disks": (Disks, 0.1, 3),
    "pairs": (Pairs, 0.05, 1),
    "audio": (lambda shop: Media(shop, "audio"), 0.03, 60),
    "images": (lambda shop: Media(shop, "image"), 0.04, 40),
    "video": (lambda shop: Media(shop, "video"), 0.04, 60),
    "formats": (Artifacts, 0.17, 100),
}


def main(words=None, forker=None):
    """The exit code. ``forker``: starts the commands of a short run; see :class:`Workshop`."""
    args = parser().parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    args.seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    if args.worker is not None:
        return work(args, Workshop(args.folder, f"worker{args.worker}"))
    print(f"soak: seed {args.seed}, {args.minutes:g} minutes, findings in {args.findings}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bridle-soak-"))
    try:
        return attack(args, folder, forker)
    finally:
        if args.keep:
            print(f"soak: kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="for all attacks, after the reference runs")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="ATTACK")
    parser.add_argument("--number", type=int, help="repeat only the attempt with this number")
    parser.add_argument("--short", action="store_true", help="a fixed number of attempts in one worker, as make test")
    parser.add_argument("--table", type=Path, help="also write the totals to this file, as JSON")
    parser.add_argument("--findings", type=Path, default=ROOT / "soak-findings")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the runs")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def attack(args, folder, forker=None):
    """Make the references, start the workers, and print the table; the exit code."""
    shop, result = Workshop(folder, "references", args.short, forker), Result()
    codes = [] if set(args.only) <= MEDIA else shop.prepare(result, ranks="rank-kills" in args.only)
    if any(codes) or result.problems:
        print(f"soak: the undisturbed runs end with {codes}, {[p.text[:300] for p in result.problems]}")
        return 1
    start = time.monotonic()
    if args.short or args.number is not None:
        args.worker, args.folder, count = 0, folder, 1
        codes = [work(args, shop)]
    else:
        shop.close()
        workers, count = [start_worker(args, folder, number) for number in range(WORKERS)], WORKERS
        try:
            codes = [worker.wait() for worker in workers]
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
    totals = merge([(folder / f"{number}.jsonl").read_text().splitlines() for number in range(count)])
    minutes = (time.monotonic() - start) / 60
    print(f"\nseed {args.seed}, {minutes:.0f} minutes, {count} workers\n\n{table(totals)}\n")
    if args.table:
        args.table.write_text(json.dumps(totals))
    found = sum(columns.total() for _, columns, _ in totals.values())
    if any(codes):
        print(f"soak: the workers ended with {codes}")
    print(f"soak: {found} findings, see {args.findings}" if found else "soak: nothing was lost")
    return 1 if found or any(codes) else 0


def start_worker(args, folder, number):
    command = [sys.executable, str(Path(__file__).parent), "--worker", str(number), "--folder", str(folder)]
    command += ["--seed", str(args.seed), "--minutes", str(args.minutes), "--findings", str(args.findings)]
    return subprocess.Popen([*command, "--only", *args.only])


def work(args, shop):
    """One worker: every attack for its share of the time; the workers begin at different ones."""
    try:
        return attack_in_turn(args, shop)
    finally:
        shop.close()


def attack_in_turn(args, shop):
    shares = sum(ATTACKS[name][1] for name in args.only)
    offset = args.worker * len(args.only) // WORKERS
    with (args.folder / f"{args.worker}.jsonl").open("w") as records:
        for name in [*args.only[offset:], *args.only[:offset]]:
            make, share, short = ATTACKS[name]
            one, tally = make(shop), Tally(name, args.findings)
            end = time.monotonic() + 60 * args.minutes * share / shares
            for result, number in attempts(one, name, args, end, short if args.short else None):
                tally.add(result, args.seed, number)
                for problem in result.problems[:3]:
                    print(f"soak: {name} {number}: {problem.column}: {last_line(problem.text)}", flush=True)
                print(tally.record(), file=records, flush=True)
            if hasattr(one, "close"):
                one.close()
            print(f"soak: worker {args.worker} ends {name}: {dict(tally.tried)}, {dict(tally.columns)}", flush=True)
    return 0


def attempts(one, name, args, end, count):
    """Results of attempts, gathered for some seconds unless there is a finding, and the number of the last one.

    There are ``count`` attempts; None: as many as begin before the time ``end``.
    """
    first, step = (args.number, 1) if args.number is not None else (args.worker, 1 if args.short else WORKERS)
    together, since = Result(), time.monotonic()
    for number in itertools.count(first, step):
        try:
            result = one.attempt(random.Random(f"{args.seed}/{name}/{number}"))
        except Exception:
            result = Result()
            result.add("lost", f"the attack itself failed:\n{traceback.format_exc()}")
        over = args.number is not None or (time.monotonic() > end if count is None else number + 1 >= count)
        together.tried += result.tried
        together.megabytes = max(together.megabytes, result.megabytes)
        together.problems = result.problems
        if result.problems or over or time.monotonic() - since > RECORD_EVERY:
            yield together, number
            together, since = Result(), time.monotonic()
        if over:
            return


def last_line(text):
    return text.strip().splitlines()[-1][:200] if text.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
