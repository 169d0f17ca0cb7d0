//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var localFirst = scenario{
	name: "local-first", title: "agents use their own datacenter's masters",
	run: func(t *T) {
		t.Cleanup(func() { t.Must(t.SetNodes(t.Context(), stack.Default.Targets, stack.Default.CATarget)) })
		settingsByFact(t)
		equalShares(t)
		runsStayLocal(t)
		t.Must(t.SetNodes(t.Context(), stack.Default.Targets, "camaster"))
		noLocalMaster(t)
	},
}

// settingsByFact: what the class has written into both agents' puppet.conf.
func settingsByFact(t *T) {
	var all []*stack.Process
	agents := t.Hosts(stack.Agents...)
	for _, h := range agents {
		all = append(all, h.Start(t.Context(), "puppet", "config", "print", "--section", "agent", "use_srv_records", "srv_domain", "server"))
	}
	for i, h := range agents {
		r := all[i].Wait()
		t.Must(r.Error())
		set := make(map[string]string)
		for line := range strings.Lines(r.Out) {
			if name, value, ok := strings.Cut(line, "="); ok {
				set[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		}
		want := map[string]string{"use_srv_records": "true", "srv_domain": stack.DomainOf(h.Datacenter), "server": stack.Camaster}
		how := []string{"a file", "its networks"}[i]
		t.Check(maps.Equal(set, want), h.Short+" by the class, datacenter by "+how,
			"use_srv_records true, srv_domain "+want["srv_domain"]+", server "+want["server"],
			"%s, %s, %s", set["use_srv_records"], set["srv_domain"], set["server"])
	}
}

// draws are many picks: a share of 44% would exceed `unlikely` 98 times of 100.
const draws = 3000

// equalShares: Puppet's own picker in both datacenters.
func equalShares(t *T) {
	var waits []func() map[string]orders
	agents := t.Hosts(stack.Agents...)
	for _, h := range agents {
		waits = append(waits, startPicks(t, h, draws, append([]string{"ca"}, compiling...)...))
	}
	for i, h := range agents {
		found := waits[i]()
		local, remote := mastersIn(t, h.Datacenter), mastersIn(t, other(h.Datacenter))
		ok, bad := true, 0
		var said []string
		for _, service := range compiling {
			o := found[service]
			first, third := o.at(0), o.at(2)
			near, far := even(first[local[0]], first[local[1]]), even(third[remote[0]], third[remote[1]])
			ok = ok && len(first) == 2 && len(third) == 2 && near < unlikely && far < unlikely
			bad += o.outOf(local)
			said = append(said, fmt.Sprintf("%s: %s (%.2f), then %s (%.2f)", service, shares(first), near, shares(third), far))
		}
		t.Check(ok && bad == 0, fmt.Sprintf("%s picks %d times for each service", h.Short, draws),
			fmt.Sprintf("local masters before remote ones, equal shares of either (chi-square below %.1f)", unlikely),
			"%s; %d times a remote one before a local one", strings.Join(said, "; "), bad)
		ca, m1 := found["ca"], "m1."+stack.Domain
		t.Check(len(ca) == 1 && ca[m1] == draws, h.Short+" picks for the CA, ca_target host", "always "+m1, "%s", shares(ca.at(0)))
	}
}

// refreshCRL has a run ask the CA as well: for a newer CRL.
const refreshCRL = "--crl_refresh_interval=1s"

// runsStayLocal: whole runs, by the agents' words and the masters' access logs.
func runsStayLocal(t *T) {
	logs := make(map[string]int)
	for _, m := range stack.Masters {
		logs[m] = len(t.Host(m).Read(accessLog))
	}
	for _, run := range startRuns(t, "--debug", refreshCRL) {
		r := run.wait()
		h, route := run.host, routes(r)
		t.Check(r.Applied() && onlyTo(route, mastersIn(t, h.Datacenter)...) && route["ca"] == "m1."+stack.Domain,
			"a run of "+h.Short, "masters of "+h.Datacenter+"; m1 for the CA", "exit code %d after %.1f s; %s", r.Code, r.Took.Seconds(), routing(route))
		requests, strangers := 0, 0
		t.Must(stack.Until(t.Context(), "the run stands in the access logs", func() error {
			requests, strangers = 0, 0
			reported := false
			for _, m := range t.Hosts(stack.Masters...) {
				text := m.Read(accessLog)
				n, last := compilingRequests(text[min(logs[m.Short], len(text)):], h.Addr.String())
				reported = reported || last
				requests += n
				if m.Datacenter != h.Datacenter {
					strangers += n
				}
			}
			if !reported {
				return fmt.Errorf("no report of %s in any access log", h.Addr)
			}
			return nil
		}))
		t.Check(strangers == 0, "... by the access logs", "no request at a remote master but for the CA's", "%d requests, %d of them at remote masters", requests, strangers)
	}
}

const accessLog = "/var/log/puppetserver/puppetserver-access.log"

// compilingRequests counts the requests of an address that were not for the CA, and says
// whether a run's last one is there.
func compilingRequests(log, address string) (n int, last bool) {
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, address+" ") && strings.Contains(line, " /puppet/v3/") {
			n++
			last = last || strings.Contains(line, "PUT /puppet/v3/report/")
		}
	}
	return n, last
}

// noLocalMaster: both masters of datacenter2 are down, one killed and one hanging.
func noLocalMaster(t *T) {
	ctx := t.Context()
	m3, m4 := t.Host("m3"), t.Host("m4")
	t.Must(m3.Pause(stack.Puppetserver))
	t.Cleanup(func() { t.Must(m3.Resume(stack.Puppetserver)) })
	t.Must(m4.Kill(stack.Puppetserver))
	t.Cleanup(func() { t.Must(m4.Service(ctx, "start", stack.Puppetserver)) })
	t.Must(stack.Until(ctx, "ns2 lists remote masters first", func() error {
		all, err := t.Targets(ctx, "ns2", "_x-puppet._tcp."+stack.DomainOf("datacenter2"))
		if err == nil && (len(all) == 0 || !slices.Contains(mastersIn(t, "datacenter1"), all[0].Target)) {
			err = fmt.Errorf("it answers %v", all)
		}
		return err
	}))
	runs := startRuns(t, "--debug", refreshCRL)
	undisturbed, r := runs[0].wait(), runs[1].wait()
	route := routes(undisturbed)
	t.Check(undisturbed.Applied() && onlyTo(route, mastersIn(t, "datacenter1")...) && route["ca"] == stack.Camaster,
		"ca_target camaster: a run of a1", "masters of datacenter1; "+stack.Camaster+" for the CA", "exit code %d after %.1f s; %s", undisturbed.Code, undisturbed.Took.Seconds(), routing(route))
	route = routes(r)
	t.Check(r.Applied() && r.Code == undisturbed.Code && onlyTo(route, mastersIn(t, "datacenter1")...) && route["ca"] == stack.Camaster,
		"m4 killed, m3 hangs: a run of a2 beside it", fmt.Sprintf("remote masters, exit code %d as of a1", undisturbed.Code), "exit code %d after %.1f s; %s", r.Code, r.Took.Seconds(), routing(route))
}

// agentRun is a run of one of the two agents.
type agentRun struct {
	host *stack.Host
	wait func() stack.Result
}

// startRuns has both agents run at once.
func startRuns(t *T, more ...string) (all []agentRun) {
	for _, h := range t.Hosts(stack.Agents...) {
		all = append(all, agentRun{h, h.StartAgent(t.Context(), more...).Wait})
	}
	return all
}
