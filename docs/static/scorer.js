/* How the search ranks pages: the page of questions comes first, pages that mention everything come last. */
var Scorer = {
    score: ([page, , , , score]) =>
        score + ({ "docs/questions": 20, BENCHMARKS: -8, CHANGELOG: -8, "docs/architecture": -6 }[page] ?? 0),
    objNameMatch: 11,
    objPartialMatch: 6,
    objPrio: { 0: 15, 1: 5, 2: -5 },
    objPrioDefault: 0,
    title: 15,
    partialTitle: 7,
    term: 5,
    partialTerm: 2,
};
