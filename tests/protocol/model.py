#!/usr/bin/env python3
"""An exhaustive check of the build protocol (docs/build-protocol.md): every interleaving, every crash point, no
sampling.

One server, one cell with hosts A and B, cell0, two super-conductors, two cell conductors, one agent per host.
A state is a tuple; breadth-first search visits all states reachable with at most FAULTS faults (user delete is free);
the first broken invariant is printed as a shortest trace. Then liveness: from every state a good end is reachable
without further faults, and a state where nothing but faults can happen is a good end.

    model.py                    the protocol, then every broken variant; exit 1 if any answer is not the expected one
    model.py --break NAME       one broken variant, with its trace
    model.py --faults N         faults per run (default 2)
"""
import argparse
import sys
import time
from array import array
from collections import Counter
from typing import NamedTuple

FAULTS = 2
LIMIT = {
    "crash": 2,
    "expire": 2,
    "dup": 1,
    "lose": 1,
    "suspect": 1,
    "die": 1,
    "refuse": 1,
    "full": 1,
    "celldown": 1,
    "disable": 1,
}
KINDS = tuple(LIMIT)
BREAKS = {
    "no-fencing": "the agent forgets superseded attempts",
    "no-lease-check": "super-conductor writes without comparing its lease token",
    "drop-journal-before-publish": "journal row dropped with the mapping's change, before the cell holds the work",
    "no-delete-tombstone": "a deleted server's cell row is removed, not kept",
    "no-claim-move": "reschedule leaves the claim on the old host",
    "ack-before-commit": "the agent answers 'gone' before fence and destroy are durable",
    "insert-before-assign": "section 3 as first written: insert, then mapping + drop in one transaction",
    "delete-drops-journal": "user delete removes the journal row instead of marking it",
    "no-claim-generation": "claims are written without the consumer generation",
    "keep-claim-on-takeover": "a successor that keeps the host does not write the claim again",
    "no-renew": "the lease is not compared again between reading a claim's generation and writing it",
    "no-claim-sweep": "nobody looks for claims of servers that are gone",
    "no-attempt-check": "the cell conductor believes a report whatever its attempt number",
    "no-cleanup-row": "a superseded attempt is not remembered until its host says 'gone'",
    "refused-is-gone": "a refusal answers for the cleanup too, though what was fenced off may not be destroyed yet",
    "no-resend": "the cell conductor trusts the broker: it sends each order once",
}


class S(NamedTuple):
    mcell: str | None = None      # API db: mapping.cell: None, 'c1', 'c0'
    mdel: bool = False            # API db: mapping.deleted (user said so)
    journal: tuple | None = None  # API db: (phase 'new'|'assigned', host, del, leased)
    row: tuple | None = None      # cell db: (state, attempt, host, cleanup ((host, attempt), ...))
    row0: str | None = None       # cell0 db: None, 'ERROR', 'DELETED'
    claim: str | None = None      # Placement: host
    fence: tuple = (0, 0)         # per host, on its disk: highest attempt refused or destroyed
    intent: tuple = (0, 0)        # per host, on its disk: attempt accepted and not yet reported
    guest: tuple = (0, 0)         # per host, hypervisor: attempt of the guest
    alive: tuple = (True, True)   # per host
    cell: bool = True             # the cell's database and broker reachable
    msgs: frozenset = frozenset()
    supers: tuple = ()            # working super-conductors: (pc, token valid?, host, snapshot of claim)
    conds: tuple = ()             # working cell conductors: (pc, attempt, host, snapshot of claim)
    faults: tuple = (0,) * len(KINDS)
    sent: frozenset = frozenset()  # only used by --break no-resend
    accepted: bool = False


HOSTS = "AB"


def put(t, host, value):
    i = HOSTS.index(host)
    return (*t[:i], value, *t[i + 1:])


def at(t, host):
    return t[HOSTS.index(host)]


def bag(workers):
    """Workers of a kind are alike: their order does not count."""
    return tuple(sorted(workers, key=repr))


def lost(workers):
    """A new token in the journal, or no journal row: nobody's old token fits."""
    return tuple((w[0], False, *w[2:]) for w in workers)


def cleanup_add(row, host, attempt):
    return tuple(sorted(set(row[3]) | {(host, attempt)})) if host else row[3]


class Model:
    def __init__(self, broken=None, faults=FAULTS, kinds=KINDS, most=None, delete=True):
        self.b, self.max, self.delete = broken, faults, delete
        self.limit = [(most or LIMIT[k]) if k in kinds else 0 for k in KINDS]

    # ---- helpers -------------------------------------------------------------------------------------------------
    def fault(self, s, kind):
        """The state with one more fault of this kind, or None when the budget is spent."""
        i = KINDS.index(kind)
        if sum(s.faults) >= self.max or s.faults[i] >= self.limit[i]:
            return None
        return s._replace(faults=(*s.faults[:i], s.faults[i] + 1, *s.faults[i + 1:]))

    def claim_written(self, s, host):
        """Every claim write bumps the consumer generation: snapshots 'cur' become 'old'; 'none' is a null
        generation."""
        def age(w):
            return (*w[:3], "old") if w[3] == "cur" else w
        return s._replace(claim=host, supers=bag(map(age, s.supers)), conds=bag(map(age, s.conds)))

    def may_put(self, s, snap):
        if self.b == "no-claim-generation":
            return True
        return s.claim is None if snap == "none" else snap == "cur" and s.claim is not None

    def step(self, s, field, w, new):
        """Worker w of s.supers / s.conds becomes `new` (None: idle)."""
        ws = list(getattr(s, field))
        ws.remove(w)
        return s._replace(**{field: bag([*ws, new] if new else ws)})

    # ---- all successors: (name, is_fault, state) -----------------------------------------------------------------
    def next(self, s):
        out = []
        def add(name, t, fault=False):
            return t is not None and t != s and out.append((name, fault, t))
        if not s.accepted:
            return [("api.accept", False, s._replace(accepted=True, journal=("new", None, False, False)))]
        self.api(s, add)
        self.super_conductor(s, add)
        if s.cell:
            self.cell_conductor(s, add)
        self.agents(s, add)
        self.faults_(s, add)
        return out

    def api(self, s, add):
        if s.mdel or not self.delete:
            return
        t = s._replace(mdel=True)
        if s.journal is None:
            t = t._replace(journal=("assigned", None, True, False))
        elif self.b == "delete-drops-journal":
            t = t._replace(journal=None, supers=bag(lost(s.supers)))
        else:
            t = t._replace(journal=(*s.journal[:2], True, s.journal[3]))
        add("api.delete", t, "user")

    # ---- super-conductor -----------------------------------------------------------------------------------------
    def super_conductor(self, s, add):
        j = s.journal
        if j and not j[3] and len(s.supers) < 2:      # lease: a fresh token; older tokens stop being valid
            pc = ("undo" if j[2] else "claim") if j[0] == "new" else "insert" if s.mcell == "c1" else "release0"
            if pc == "insert" and j[2]:
                pc = "tombstone"
            w = (pc, True, j[1], "none" if pc == "claim" else None)
            add("super.lease", s._replace(journal=(*j[:3], True), supers=bag((*lost(s.supers), w))))
        for w in set(s.supers):
            self.super_step(s, w, add)
        if self.b != "no-claim-sweep" and s.claim and not j and (
                s.mcell == "c0" or (s.mdel and s.mcell is None)):
            add("sweep.claims", self.claim_written(s, None))

    def super_step(self, s, w, add):
        pc, valid, host, snap = w
        j = s.journal
        # every write to the journal compares the token: (valid lease) unless broken
        ok = j is not None and (valid or self.b == "no-lease-check")
        def to(t, *new):
            return self.step(t, "supers", w, tuple(new) if new else None)
        def nojournal(t):
            return t._replace(journal=None, supers=bag(lost(t.supers)))
        if pc == "claim":                             # chosen from the view; the first try says "no such consumer yet"
            fresh = s.claim is None and s.row is None and not any(x[2] for x in s.supers)
            for h in ("A" if fresh else HOSTS) if s.cell else ():      # hosts are alike: the first choice is A
                nxt = "insert" if self.b == "insert-before-assign" else "assign"
                if self.b == "keep-claim-on-takeover" and s.claim == h:
                    add(f"super.keep-claim {h}", to(s, nxt, valid, h, None))
                elif self.may_put(s, snap):
                    add(f"super.claim {h}", self.claim_written(to(s, nxt, valid, h, None), h))
                else:
                    add("super.claim refused (generation)", to(s, "read", valid, None, None))
            f = self.fault(s, "full") if s.cell else s
            add("super.choose nothing", f and to(f, "bury", valid, None, None), s.cell and "full")
        elif pc == "read":                            # somebody claimed before: its generation first, then the lease
            add("super.read-claim", to(s, "renew", valid, host, "none" if s.claim is None else "cur"))
        elif pc == "renew":
            if ok or self.b == "no-renew":
                t = s._replace(journal=j and (*j[:3], True)) if ok else s
                add("super.renew", to(t, "claim", valid, host, snap))
            else:
                add("super.renew refused (lease lost)", to(s))
        elif pc in ("assign", "bury"):                # the point of no return: mapping.cell, compared with the token
            if not ok:
                add("super.assign refused (lease lost)", to(s))
            elif j[2]:
                add("super.assign refused (deleted)", to(s, "undo", valid, None, None))
            else:
                t = s._replace(mcell="c1" if pc == "assign" else "c0", journal=("assigned", host, False, j[3]))
                if self.b == "drop-journal-before-publish":
                    t = t._replace(journal=None)
                if self.b == "insert-before-assign" and pc == "assign":
                    add("super.assign+drop c1", nojournal(to(t)))
                else:
                    add(f"super.assign {t.mcell}", to(t, "insert" if pc == "assign" else "release0", valid, host, None))
        elif pc == "insert" and s.cell:               # insert-if-absent by uuid; runnable from this commit on
            row = s.row or ("BUILD", 1, host, ())
            nxt = "assign" if self.b == "insert-before-assign" and j and j[0] == "new" else "drop"
            add("super.insert", to(s._replace(row=row), nxt, valid, host, None))
            f = self.fault(s, "disable") if s.row is None and host else None
            if f:                                     # disabled since it was chosen: attempt 1 is over before it began
                row = ("BUILD", 2, "B" if host == "A" else "A", ())
                add("super.insert (host disabled)", to(f._replace(row=row), nxt, valid, host, None), "disable")
        elif pc == "release0":
            add("super.release", self.claim_written(to(s, "insert0", valid, None, None), None))
        elif pc == "insert0":
            add("super.insert cell0", to(s._replace(row0=s.row0 or "ERROR"), "drop", valid, None, None))
        elif pc == "drop":
            if not ok:
                add("super.drop refused (lease lost)", to(s))
            elif j[2]:
                add("super.drop refused (deleted)", to(s, "tombstone", valid, None, None))
            else:
                add("super.drop", nojournal(to(s)))
        elif pc == "undo":
            add("super.release", self.claim_written(to(s, "tombstone0", valid, None, None), None))
        elif pc == "tombstone0":                      # never in any cell: cell0 keeps its history
            add("super.tombstone cell0", to(s._replace(row0="DELETED"), "finish", valid, None, None))
        elif pc == "tombstone":                       # the delete's intent, recorded where the work is
            if s.mcell == "c0":
                add("super.tombstone cell0", to(s._replace(row0="DELETED"), "finish", valid, None, None))
            elif s.cell:
                r = s.row
                if r is None:
                    r = ("DELETING", 0, None, ())
                elif r[0] not in ("DELETING", "DELETED"):
                    r = ("DELETING", r[1], None, cleanup_add(r, r[2], r[1]))
                add("super.tombstone", to(s._replace(row=r), "finish", valid, None, None))
        elif pc == "finish":
            t = to(s)
            done = nojournal(t._replace(mcell=t.mcell or "c0"))
            add("super.finish" if ok else "super.finish refused (lease lost)", done if ok else t)

    # ---- cell conductor: every row write compares (state, attempt) ------------------------------------------------
    def cell_conductor(self, s, add):
        r = s.row
        if r and r[0] == "BUILD" and len(s.conds) < 2:
            n, h = r[1], r[2]
            waiting = {("build", n, h), ("active", n, h), ("refused", n, h)} & s.msgs
            f = s                                     # a second taker, or an order sent again too early, is a fault
            if s.conds:
                f = self.fault(s, "expire")
            elif at(s.intent, h) == n:
                f = self.fault(s, "dup")
            if f and not waiting and at(s.alive, h) and not (self.b == "no-resend" and ("build", n, h) in s.sent):
                snap = "none" if s.claim is None else "cur"   # the claim's generation is read first, then the row
                good = s.claim == h or n == 1 or self.b == "no-claim-move"     # attempt 1: the super's claim stands
                w = ("send", n, h, None) if good else ("claim", n, h, snap)
                add("cell.take" if f is s else "cell.take (too early)",
                    f._replace(conds=bag((*s.conds, w))), f is not s)
        for w in set(s.conds):
            pc, n, h, snap = w
            if pc == "claim" and self.may_put(s, snap):
                add(f"cell.claim {h}", self.claim_written(self.step(s, "conds", w, ("send", n, h, None)), h))
            elif pc == "claim":
                add("cell.claim refused (generation)", self.step(s, "conds", w, None))
            else:
                add(f"cell.send build {n} {h}", self.send(self.step(s, "conds", w, None), ("build", n, h)))
        if r is None:
            return
        for m in s.msgs:
            kind, n, h = m
            mine = (r[0] == "BUILD" and r[1] == n) or (self.b == "no-attempt-check" and r[0] != "DELETED")
            if kind == "active":
                self.consume(s, m, f"cell.active {n} {h}", add, row=("ACTIVE", n, h, r[3]) if mine else r)
            elif kind == "refused":
                t = self.superseded(r, False) if mine else r
                if self.b == "refused-is-gone":
                    t = (*t[:3], tuple(c for c in t[3] if c[0] != h or c[1] > n))
                self.consume(s, m, f"cell.supersede {n} {h}" if mine else f"cell.ignore refused {n}", add, row=t)
            elif kind == "gone":
                rest = tuple(c for c in r[3] if c[0] != h or c[1] > n)
                self.consume(s, m, f"cell.gone {n} {h}", add, row=(*r[:3], rest))
        if r[0] == "BUILD":
            if not at(s.alive, r[2]):
                add("cell.supersede (host dead)", s._replace(row=self.superseded(r, True)))
            else:
                f = self.fault(s, "suspect")
                add("cell.supersede (host wrongly thought dead)", f and f._replace(row=self.superseded(r, True)), True)
        for h, n in r[3]:
            m = ("destroy", n, h)
            if not {m, ("gone", n, h)} & s.msgs and not (self.b == "no-resend" and m in s.sent):
                add(f"cell.send destroy {n} {h}", self.send(s, m))
        if r[0] in ("ERROR", "DELETING", "DELETED") and not r[3]:
            if s.claim and (self.b != "no-claim-sweep" or r[0] != "DELETED"):
                add("cell.release", self.claim_written(s, None))
            elif r[0] == "DELETING" and not s.claim:
                gone = None if self.b == "no-delete-tombstone" else ("DELETED", r[1], None, ())
                add("cell.deleted", s._replace(row=gone))

    def send(self, s, m):
        return s._replace(msgs=s.msgs | {m}, sent=s.sent | {m} if self.b == "no-resend" else s.sent)

    def superseded(self, r, unsure):
        """The row after attempt r[1] is given up; unsure: the host did not say that nothing is left there."""
        clean = cleanup_add(r, r[2], r[1]) if unsure and self.b != "no-cleanup-row" else r[3]
        if r[1] >= 2:
            return ("ERROR", r[1], None, clean)
        return ("BUILD", r[1] + 1, "B" if r[2] == "A" else "A", clean)

    def consume(self, s, m, name, add, **changes):
        """A message handled: effects committed, then acked; or the ack is lost and it comes again."""
        t = s._replace(**changes)
        add(name, t._replace(msgs=s.msgs - {m} | (t.msgs - s.msgs)))
        f = self.fault(s, "dup")
        if f:
            add(
                name + " (ack lost)",
                f._replace(msgs=t.msgs, **{k: v for k, v in changes.items() if k != "msgs"}),
                "dup",
            )

    # ---- agents: all memory is on disk, so a restart only repeats -------------------------------------------------
    def agents(self, s, add):
        for h in HOSTS:
            if not at(s.alive, h):
                continue
            n, g, fence = at(s.intent, h), at(s.guest, h), at(s.fence, h)
            if n and g != n:
                add(f"agent.create {n} {h}", s._replace(guest=put(s.guest, h, n)))
            elif n and s.cell:
                add(f"agent.report {n} {h}", s._replace(intent=put(s.intent, h, 0), msgs=s.msgs | {("active", n, h)}))
            for m in s.msgs if s.cell else ():
                kind, k, host = m
                if host != h:
                    continue
                if kind == "build":
                    if fence >= k and self.b != "no-fencing":
                        self.consume(s, m, f"agent.refuse {k} {h}", add, msgs=s.msgs | {("refused", k, h)})
                    elif n == k:
                        self.consume(s, m, f"agent.again {k} {h}", add)
                    elif g == k:
                        self.consume(s, m, f"agent.report again {k} {h}", add, msgs=s.msgs | {("active", k, h)})
                    else:
                        self.consume(s, m, f"agent.accept {k} {h}", add, intent=put(s.intent, h, k))
                        f = self.fault(s, "refuse") if k == 1 else None
                        add(f"agent.cannot {k} {h}", f and f._replace(fence=put(s.fence, h, k)), "refuse")
                elif kind == "destroy":
                    reply = s.msgs | {("gone", k, h)}
                    if self.b == "ack-before-commit":
                        add(f"agent.gone {k} {h} (nothing done yet, then killed)", s._replace(msgs=reply - {m}))
                    if fence < k and self.b != "no-fencing":
                        add(f"agent.fence {k} {h}", s._replace(fence=put(s.fence, h, k),
                                                              intent=put(s.intent, h, n if n > k else 0)))
                    elif n and n <= k:                # only without fencing
                        add(f"agent.forget {k} {h}", s._replace(intent=put(s.intent, h, 0)))
                    elif g and g <= k:
                        add(f"agent.destroy {g} {h}", s._replace(guest=put(s.guest, h, 0)))
                    else:
                        self.consume(s, m, f"agent.gone {k} {h}", add, msgs=reply)

    # ---- faults --------------------------------------------------------------------------------------------------
    def faults_(self, s, add):
        j = s.journal
        held = any(w[1] for w in s.supers)
        if j and j[3]:
            if not held:                              # the holder is dead: expiry is only a matter of time
                add("lease runs out", s._replace(journal=(*j[:3], False)))
            else:
                f = self.fault(s, "expire")
                add("lease runs out under a slow holder", f and f._replace(journal=(*j[:3], False)), "expire")
        for i, h in enumerate(HOSTS):
            if s.alive[i]:
                f = self.fault(s, "die")
                add(f"host {h} dies", f and f._replace(alive=put(s.alive, h, False)), "die")
            else:
                add(f"host {h} returns with what it had", s._replace(alive=put(s.alive, h, True)))
        if s.cell:
            f = self.fault(s, "celldown")
            add("cell goes away", f and f._replace(cell=False), "celldown")
        else:
            add("cell returns", s._replace(cell=True))
        f = self.fault(s, "lose")
        for m in s.msgs if f else ():
            add(f"broker loses {m}", f._replace(msgs=s.msgs - {m}), "lose")
        f = self.fault(s, "crash")
        if f:
            for w in set(s.supers):
                add(f"super-conductor killed at {w[0]}", self.step(f, "supers", w, None), "crash")
            for w in set(s.conds):
                add(f"cell conductor killed at {w[0]}", self.step(f, "conds", w, None), "crash")

    # ---- what must hold ------------------------------------------------------------------------------------------
    def wrong(self, s):
        """The invariant this state breaks, or None."""
        if not s.accepted:
            return None
        r, j = s.row, s.journal
        live = r and r[0] in ("BUILD", "ACTIVE")
        if live and sum(g == r[1] for g in s.guest) > 1:
            return "(a) two guests of the current attempt"
        if r and r[0] == "ACTIVE" and (at(s.guest, r[2]) != r[1] or s.claim != r[2]):
            return "(a,b) ACTIVE without its guest or its claim on that host"
        if r and r[0] != "DELETED" and s.mcell != "c1" and not (j and self.b == "insert-before-assign"):
            return "(c) the cell holds a row the mapping does not point to"
        if r and r[0] != "DELETED" and s.row0:
            return "(c) the server is in the cell and in cell0"
        if not s.mdel and not j:
            if not ((s.mcell == "c1" and r) or (s.mcell == "c0" and s.row0)):
                return "(c) an accepted server is in no journal, cell or cell0"
            if r and r[0] in ("DELETING", "DELETED"):
                return "(d) deleted though nobody asked"
        if s.mdel and not j and (live or (r and r[0] == "ERROR") or s.row0 == "ERROR"):
            return "(d) a deleted server is alive again"
        return None

    def good_end(self, s):
        """(e), at rest."""
        r = s.row
        if not s.accepted or s.journal or s.msgs or s.supers or s.conds or any(s.intent) or (r and r[3]):
            return False
        if r and r[0] == "ACTIVE":
            guests = put((0, 0), r[2], r[1])
            return not s.mdel and s.mcell == "c1" and s.guest == guests and s.claim == r[2] and not s.row0
        if any(s.guest) or s.claim:
            return False
        if s.mdel:
            return (r is None or r[0] == "DELETED") and s.row0 in (None, "DELETED")
        return bool(r and r[0] == "ERROR" and s.mcell == "c1" and not s.row0) or (
            s.row0 == "ERROR" and s.mcell == "c0" and not r
        )


def check(broken, *options):
    """Search; returns (verdict or None, trace, states, edges, ends)."""
    m = Model(broken, *options)
    first = S()
    ids, states, parent, how = {first: 0}, [first], array("q", [-1]), [""]
    src, dst = array("I"), array("I")
    ends, i = [], 0

    def trace(k):
        steps = []
        while parent[k] >= 0:
            steps.append(how[k])
            k = parent[k]
        return steps[::-1]
    while i < len(states):
        s = states[i]
        quiet = True
        for name, fault, t in m.next(s):
            k = ids.get(t)
            if k is None:
                k = ids[t] = len(states)
                states.append(t)
                parent.append(i)
                how.append(("* " if fault else "  ") + name)
                bad = m.wrong(t)
                if bad:
                    return bad, trace(k), len(states), len(src), t
            if not fault:
                quiet = False
                src.append(i)
                dst.append(k)
        good = m.good_end(s)
        if good:
            ends.append(i)
        elif quiet:
            return "(e) nothing left to do, and not a good end", trace(i), len(states), len(src), s
        i += 1
    head, link = array("q", [-1]) * len(states), array("q", [-1]) * len(src)
    for e in range(len(src)):                         # backwards from the good ends, over steps that are no faults
        link[e], head[dst[e]] = head[dst[e]], e
    seen = bytearray(len(states))
    todo = list(ends)
    for e in ends:
        seen[e] = 1
    while todo:
        e = head[todo.pop()]
        while e >= 0:
            if not seen[src[e]]:
                seen[src[e]] = 1
                todo.append(src[e])
            e = link[e]
    trap = seen.find(0)
    if trap >= 0:
        return "(liveness) no good end can be reached any more", trace(trap), len(states), len(src), states[trap]
    def kind(s):
        return "deleted" if s.mdel else "ACTIVE" if s.row and s.row[0] == "ACTIVE" else "ERROR"
    return None, [], len(states), len(src), dict(Counter(kind(states[e]) for e in ends))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--break", dest="broken", choices=BREAKS)
    p.add_argument("--faults", type=int, default=FAULTS, help="faults in one run (default %(default)s)")
    p.add_argument("--kinds", default=",".join(KINDS), help="which faults (default %(default)s)")
    p.add_argument("--most", type=int, help="faults of one kind (default: 1, crash and expire 2)")
    p.add_argument("--no-delete", action="store_true", help="the user never deletes")
    p.add_argument("--only", action="store_true", help="the protocol alone, no broken variants")
    a = p.parse_args()
    failed = False
    print(f"{'variant':30} {'verdict':62} {'steps':>5} {'states':>8} {'edges':>9} {'s':>6}")
    for name in [a.broken] if a.broken else [None] if a.only else [None, *BREAKS]:
        start = time.time()
        bad, steps, states, edges, last = check(name, a.faults, a.kinds.split(","), a.most, not a.no_delete)
        failed |= bool(bad) != bool(name)
        print(
            f"{name or 'the protocol':30} {bad or 'holds; ends ' + str(last):62} {len(steps) or '':>5} {states:>8} "
            f"{edges:>9} {time.time() - start:6.1f}",
            flush=True,
        )
        if bad and (a.broken or not name):
            print("\n".join("    " + x for x in steps), last, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
