//go:build linux

package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// resolved is the Puppet agent's notice, with --debug, of the master that it has chosen for
// a service.
var resolved = regexp.MustCompile(`Resolved service '(\w+)' to https://([^:/]+):`)

// routes are the masters that a run with --debug has chosen, by service.
func routes(r stack.Result) map[string]string {
	all := make(map[string]string)
	for _, m := range resolved.FindAllStringSubmatch(r.Out+r.Err, -1) {
		all[m[1]] = m[2]
	}
	return all
}

// compiling are the services that any master has; the remaining one is the CA.
var compiling = []string{"fileserver", "puppet", "report"}

// onlyTo reports whether a run has gone to masters for every service of compiling, and
// only to the named ones.
func onlyTo(route map[string]string, names ...string) bool {
	for _, service := range compiling {
		if !slices.Contains(names, route[service]) {
			return false
		}
	}
	return true
}

// routing is what is said of routes.
func routing(route map[string]string) string {
	var all []string
	for _, service := range slices.Sorted(maps.Keys(route)) {
		all = append(all, fmt.Sprintf("%s %s", service, label(route[service])))
	}
	return strings.Join(all, ", ")
}

// mastersIn are the names of a datacenter's masters, with `targets host`.
func mastersIn(t *T, datacenter string) (names []string) {
	for _, m := range t.Hosts(stack.Masters...) {
		if m.Datacenter == datacenter {
			names = append(names, m.FQDN())
		}
	}
	return names
}

// other is the other datacenter.
func other(datacenter string) string {
	if datacenter == "datacenter1" {
		return "datacenter2"
	}
	return "datacenter1"
}
