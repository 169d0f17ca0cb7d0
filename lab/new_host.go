//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var newHost = scenario{
	name: "new-host", title: "a new host joins through _x-puppet-ca, in either datacenter",
	run: func(t *T) {
		ctx := t.Context()
		t.Cleanup(func() { t.Must(t.SetNodes(ctx, stack.Default.Targets, stack.Default.CATarget)) })
		for _, target := range []struct{ setting, name string }{
			{"host", "m1." + stack.Domain},
			{"camaster", stack.Camaster},
		} {
			t.Must(t.SetNodes(ctx, stack.Default.Targets, target.setting))
			hosts := []*stack.Host{freshHost(t, "datacenter1"), freshHost(t, "datacenter2")}
			var runs []<-chan stack.Result
			for _, h := range hosts {
				// Nobody has the name of this server: what is found is found by SRV records.
				runs = append(runs, later(func() stack.Result {
					return h.FirstRun(ctx, "--debug", "--server", "nowhere."+stack.Domain)
				}))
			}
			for i, h := range hosts {
				checkJoined(t, h, <-runs[i], target.setting, target.name)
			}
		}
	},
}

// foundCA is the agent's notice, with --debug, of the records that it was given.
var foundCA = regexp.MustCompile(`Found (\d+) SRV records for: _x-puppet-ca\._tcp\.(\S+)`)

// checkJoined checks a new host's first run, which had to ask for its certificate
// under the name caName.
func checkJoined(t *T, h *stack.Host, r stack.Result, setting, caName string) {
	records := "no records"
	asked := false
	if m := foundCA.FindStringSubmatch(r.Out + r.Err); m != nil {
		asked = m[1] == "1" && m[2] == stack.DomainOf(h.Datacenter)
		records = m[1] + " record of " + m[2]
	}
	first := "nobody"
	if names := r.Masters(); len(names) > 0 {
		first = names[0]
	}
	requests := servedBy(t, "PUT /puppet-ca/v1/certificate_request/"+h.FQDN())
	t.Check(asked && first == caName && slices.Equal(requests, []string{"m1"}),
		"a new host in "+h.Datacenter+", ca_target "+setting+": its signing request", "by the one record of _x-puppet-ca to "+caName+", to m1 alone",
		"%s; first connected to %s; seen by %s", records, first, orNone(strings.Join(requests, ", ")))

	signed := t.Host("m1").Read(cadir + "/signed/" + h.FQDN() + ".pem")
	has := signed != "" && h.Read("/var/lib/puppet/ssl/certs/"+h.FQDN()+".pem") == signed
	compiled := servedBy(t, "POST /puppet/v3/catalog/"+h.FQDN())
	local := len(compiled) > 0
	for _, m := range compiled {
		local = local && t.Host(m).Datacenter == h.Datacenter
	}
	t.Check(r.Code == 2 && has && local, "... its first run", "signed by m1, and a catalog applied that its own datacenter's masters have compiled",
		"%s; exit code %d after %.1f s; compiled by %s", map[bool]string{true: "signed", false: "not signed"}[has], r.Code, r.Took.Seconds(), orNone(strings.Join(compiled, ", ")))
	if !r.Applied() {
		t.Logf("%s", sayErrors(r))
	}
}

// servedBy are the masters that have had a request which begins so.
func servedBy(t *T, request string) (all []string) {
	for _, m := range stack.Masters {
		if strings.Contains(t.Host(m).Read(accessLog), request) {
			all = append(all, m)
		}
	}
	return all
}

// freshHost is a new host with a name that was never used. It leaves the network when the
// scenario ends.
func freshHost(t *T, datacenter string) *stack.Host {
	short := ""
	for i := 1; ; i++ {
		short = fmt.Sprintf("n%d", i)
		if _, err := os.Stat(filepath.Join(t.Dir, "hosts", short)); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	h, err := t.NewAgent(short, datacenter)
	t.Must(err)
	t.Cleanup(func() { t.Must(t.Remove(h)) })
	return h
}

// later runs f beside the scenario. Its end has to be waited for.
func later[R any](f func() R) <-chan R {
	c := make(chan R, 1)
	go func() { c <- f() }()
	return c
}

// sideBySide calls f for some hosts at once.
func sideBySide[R any](hosts []*stack.Host, f func(*stack.Host) R) (all []R) {
	var ends []<-chan R
	for _, h := range hosts {
		ends = append(ends, later(func() R { return f(h) }))
	}
	for _, end := range ends {
		all = append(all, <-end)
	}
	return all
}
