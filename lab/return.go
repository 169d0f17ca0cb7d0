//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// returns brings datacenter1 back after m3 was made the camaster, makes m1 a standby, and
// then the camaster again.
func returns(t *T, rows *traffic) {
	ctx := t.Context()
	home := t.In("datacenter1")
	w := watch(t)
	t.Heal()
	began := time.Now()
	on := later(func() error { return t.On(ctx, home...) })
	converged := make(map[string]time.Duration)
	for _, n := range stack.Nodes {
		t.Must(stack.Until(ctx, n+" answers m3", func() error {
			if name := t.CNAME(ctx, n, stack.Camaster); name != "m3."+stack.Domain {
				return fmt.Errorf("it answers %q", name)
			}
			return nil
		}))
		converged[n] = time.Since(began)
	}
	t.Check(max(converged["ns1"], converged["ns2"]) < 30*time.Second, "datacenter1 returns: both nodes answer m3", "they converge", "ns1 %.1f s after the power", converged["ns1"].Seconds())
	t.Must(<-on)
	t.Logf("all of datacenter1 has started after %.0f s", time.Since(began).Seconds())
	closed := ""
	_ = stack.UntilWithin(ctx, 30*time.Second, "m1 is closed", func() error { // it is seen below
		if closed = roleOf(t, "ns1", "m1"); closed != "closed" {
			return fmt.Errorf("it is %s", closed)
		}
		return nil
	})
	t.Check(closed == "closed", "... the role on m1, before rejoin", "closed", "%s", closed)

	rejoining := time.Now()
	r := t.Ctl(ctx, "ns1", "rejoin", "m1."+stack.Domain)
	t.Check(r.OK() && roleOf(t, "ns1", "m1") == "standby", "... `rejoin m1`", "m1 is a standby", "%s after %.1f s: %s", roleOf(t, "ns1", "m1"), time.Since(rejoining).Seconds(), lastLine(r))
	t.Must(stack.Until(ctx, "m1 may be the camaster", func() error {
		return t.Ctl(ctx, "ns1", "switchover", "--to", "m1."+stack.Domain, "--dry-run").Error()
	}))

	reports := reportsOf(t)
	agents := runAgents(t, "a1", "a2")
	switching := time.Now()
	m, r := move(t, "ns1", "switchover", "m1", "datacenter1 is back")
	took := time.Since(switching)
	t.Check(r.OK() && m.Open, "switchover back to m1, its own table", "all open on m1", "%s", m.table())
	if !r.OK() {
		t.Logf("%v", r)
	}
	before := rows.count("m1")
	t.Must(stack.Until(ctx, "rows are written to m1", func() error { return atLeast(rows.count("m1"), before+20) }))
	// One more whole run of each, after the caches.
	ran := func() int { agents.mu.Lock(); defer agents.mu.Unlock(); return len(agents.runs) }
	began = time.Now()
	n := ran()
	t.Must(stack.Until(ctx, "agents have run after it", func() error {
		if time.Since(began) < 10*time.Second {
			return fmt.Errorf("caches may have the old one")
		}
		return atLeast(ran(), n+2)
	}))
	agents.stop()
	rows.stop()
	w.stop()
	lost := rows.lost("m1")
	since := 0
	for _, a := range rows.rows() {
		if a.on == "m3" {
			since++
		}
	}
	t.Check(len(lost) == 0 && since > 0, "... rows written all the time", "0 of those that m3 has acknowledged are lost", "%d of %d lost; nobody could write for %.2f s, the command took %.2f s", len(lost), since, rows.gap(switching).Seconds(), took.Seconds())
	failed := 0
	for _, r := range agents.runs {
		if !r.Applied() {
			failed++
			t.Logf("a run that began %.1f s after the command failed: %v", r.Began.Sub(switching).Seconds(), r)
		}
	}
	t.Check(failed == 0 && len(agents.runs) >= 4, "... agents run all the time, in both datacenters", "0 failed runs", "%d of %d failed", failed, len(agents.runs))
	stored := 0
	_ = stack.UntilWithin(ctx, 20*time.Second, "their reports", func() error { // it is seen below
		stored = reportsOf(t) - reports
		return atLeast(stored, len(agents.runs)-failed)
	})
	t.Check(stored >= len(agents.runs)-failed, "... their reports", "all in m1's PuppetDB", "%d of %d", stored, len(agents.runs))

	w.mu.Lock()
	defer w.mu.Unlock()
	ok, on3, on1 := turns(w.signed, time.Time{}, "m3", "m1")
	t.Check(ok && on1 > 0 && w.tried["m1 CA"] > 0, "from the return on, both CAs asked all the time", "never two that sign", "m3 signed %d, then m1 %d; refused: m1 %d, m3 %d", on3, on1, w.tried["m1 CA"], w.tried["m3 CA"])
	ok, on3, on1 = turns(w.written, time.Time{}, "m3", "m1")
	t.Check(ok && on1 > 0 && w.tried["m1 PostgreSQL"] > 0, "... both PostgreSQLs written to all the time", "never two that take it", "m3 took %d, then m1 %d; refused: m1 %d, m3 %d", on3, on1, w.tried["m1 PostgreSQL"], w.tried["m3 PostgreSQL"])
}

// reportsOf is how many reports of both agents PuppetDB has, wherever the camaster is.
func reportsOf(t *T) (n int) {
	a1 := agentOf(t, "a1")
	d := &drill{t: t, node: "ns1"}
	to := d.resolve(t.Context(), stack.Camaster)
	if to == nil {
		t.Fatalf("ns1 does not answer where %s is", stack.Camaster)
	}
	for _, name := range stack.Agents {
		has, err := a1.Reports(t.Context(), to, stack.Camaster, t.Host(name).FQDN())
		t.Must(err)
		n += len(has)
	}
	return n
}

// roleOf is the state of the role on a host, as a node has it.
func roleOf(t *T, node, host string) string {
	st, err := t.Status(t.Context(), node)
	t.Must(err)
	for _, m := range st.Masters {
		if m.Host == host+"."+stack.Domain || m.Host == host+"."+stack.Domain+"." {
			if r := m.Role(); r != nil {
				return r.State
			}
		}
	}
	return "not known"
}

// lastLine is the end of what a command has printed.
func lastLine(r stack.Result) string {
	lines := strings.Split(strings.TrimSpace(r.Out), "\n")
	return lines[len(lines)-1]
}
