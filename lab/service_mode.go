//go:build linux

package main

import (
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var serviceMode = scenario{
	name: "service-mode", title: "CA and PuppetDB in mode service, ca_target camaster: a failover takes as long as JVMs take to start",
	run: func(t *T) {
		ctx := t.Context()
		t.Cleanup(func() {
			t.Must(t.SetMembers(ctx, stack.Default.CAMode, stack.Default.PuppetDBMode))
			t.Must(t.SetNodes(ctx, stack.Default.Targets, stack.Default.CATarget))
		})
		t.Cleanup(func() { t.Must(goHome(t)) })
		t.Must(t.SetMembers(ctx, "service", "service"))
		t.Must(t.SetNodes(ctx, stack.Default.Targets, "camaster"))
		t.Must(t.Well(ctx))
		t.Check(!t.Host("m3").Runs(stack.PuppetDB), "m3 in mode service", "a standby without PuppetDB, all well", "%s", roleOf(t, "ns2", "m3"))

		m1 := t.Host("m1")
		t.Must(t.Off(m1))
		t.Must(stack.Until(ctx, "ns2 would fail over", func() error {
			return t.Ctl(ctx, "ns2", "failover", "--to", "m3."+stack.Domain, "--dry-run").Error()
		}))
		d := failover(t, "m3", 8*time.Minute, "--role-wait", "8m")
		jvms := d.command.startsOfJVMs()
		total, _ := d.command.done("total")
		t.Check(d.command.Open && jvms > 0 && jvms > total*3/4, "failover, its own table", "all open; bounded by the starts of PuppetDB and puppetserver",
			"%s; %.1f s of it in steps that start them", d.command.table(), jvms.Seconds())
		t.Check(d.signed > 0, "... a new host's request to "+stack.Camaster, "signed by m3", "%s after the command's start; DNS %s", seconds(d.signed), seconds(d.answered))
		t.Check(d.stored > 0, "... a report", "stored on m3", "%s after the command's start", seconds(d.stored))

		// The member switches the CA service off by a restart, which may cut off the start.
		if err := t.On(ctx, m1); err != nil {
			t.Logf("the boot of m1: %s", firstLine(err))
		}
		r := t.Ctl(ctx, "ns1", "rejoin", "m1."+stack.Domain)
		t.Check(r.OK() && roleOf(t, "ns1", "m1") == "standby" && !m1.Runs(stack.PuppetDB), "m1 returns, `rejoin`", "a standby, CA service and PuppetDB off", "%s: %s", roleOf(t, "ns1", "m1"), lastLine(r))

		t.Must(t.SetMembers(ctx, "hot", "hot"))
		t.Must(goHome(t))
	},
}

// startsOfJVMs is how long steps took that start puppetserver or PuppetDB.
func (m moved) startsOfJVMs() (sum time.Duration) {
	for _, s := range m.Steps {
		if (s.Service == "ca" || s.Service == "puppetdb") && (strings.Contains(s.Name, "start") || strings.Contains(s.Name, "wait")) {
			sum += time.Duration(s.Milliseconds * float64(time.Millisecond))
		}
	}
	return sum
}
