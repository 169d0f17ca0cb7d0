//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// killRounds is how often a master is killed in each datacenter.
const killRounds = 10

// mostLost is how many files one kill may cost. The one in flight is lost, and so is each
// that is asked for until the process has let go of its sockets and DNS has moved: what is
// asked in that time is refused, or accepted by a listener that nobody serves any more. It
// is short, and what it costs depends on how busy the machine is. Without a stand-in all
// that is left of the run is lost, up to 60.
const mostLost = 12

// killed is a run whose master was killed at a random moment.
type killed struct {
	outcome
	master   string
	file     int           // the last file that was there
	later    time.Duration // from that file to the kill
	next     stack.Result  // of the next run, if something was lost
	repaired bool          // by the next run
}

// randomKills kills, in both datacenters, the master that an agent's run fetches its files
// from, again and again. A run begins when both masters there are up. first is done by the
// agent of datacenter1 before.
func randomKills(t *T, first func() (planned, error)) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("the moments of the kills: seed %d", seed)
	one, two := t.Host("a1"), t.Host("a2")
	var kills [2][]killed
	other := later(func() (err error) {
		kills[1], err = killRandomly(t, two, rand.New(rand.NewPCG(seed, 2)))
		return err
	})
	p, err := first()
	if err == nil {
		kills[0], err = killRandomly(t, one, rand.New(rand.NewPCG(seed, 1)))
	}
	t.Must(errors.Join(err, <-other))
	checkPlanned(t, "service", p)

	lost, bad, repaired := make(map[int]int), 0, 0
	count := make(map[string]int)
	for _, k := range append(kills[0], kills[1]...) {
		count[k.master]++
		lost[k.lost]++
		if k.whole() {
			continue
		}
		if !k.costs(mostLost) {
			bad++
		}
		if k.repaired {
			repaired++
		}
	}
	all := len(kills[0]) + len(kills[1])
	var costs []string
	for _, n := range slices.Sorted(maps.Keys(lost)) {
		costs = append(costs, fmt.Sprintf("%d files in %d", n, lost[n]))
	}
	var whom []string
	for _, m := range stack.Masters {
		whom = append(whom, fmt.Sprintf("%s %d", m, count[m]))
	}
	t.Check(bad == 0 && all == 2*killRounds, fmt.Sprintf("%d kills at random moments of runs, Puppet's own keep-alive", all),
		fmt.Sprintf("the file in flight, and those asked for until DNS has moved, at most %d; all else applied, the report stored", mostLost),
		"lost: %s; otherwise than expected: %d (%s)", strings.Join(costs, ", "), bad, strings.Join(whom, ", "))
	t.Check(repaired == all-lost[0], "... the next runs of those that have lost something", "all fetch what was lost", "%d of %d", repaired, all-lost[0])
}

// killRandomly does so with one agent. The master starts again while that one's next
// run repairs what was lost.
func killRandomly(t *T, agent *stack.Host, random *rand.Rand) (all []killed, err error) {
	ctx := t.Context()
	for range killRounds {
		if err := startMasters(t, agent.Datacenter); err != nil {
			return all, err
		}
		r, err := fetch(t, agent, "long")
		if err != nil {
			return all, err
		}
		k := killed{file: 1 + random.IntN(stack.LongFiles-4), later: time.Duration(random.Int64N(int64(100 * time.Millisecond)))}
		if err := r.has(ctx, fetchedFile(k.file)); err != nil {
			return all, err
		}
		x, err := r.fileserver(ctx)
		if err != nil {
			return all, err
		}
		k.master = x.Short
		time.Sleep(k.later) // the random moment itself
		if err := x.Kill(stack.Puppetserver); err != nil {
			return all, err
		}
		back := later(func() error { return x.Service(ctx, "start", stack.Puppetserver) })
		k.outcome, err = r.end(ctx)
		if err == nil && !k.whole() {
			k.next = agent.Agent(ctx, "--environment", "long")
			k.repaired = k.next.Applied() && len(r.absent()) == 0
		}
		if err := errors.Join(err, <-back); err != nil {
			return all, err
		}
		all = append(all, k)
		t.Logf("%s: killed %v after file %d: %v\n%s", k.master, k.later.Round(time.Millisecond), k.file, k.outcome, sayErrors(k.Result))
	}
	return all, nil
}
