// Command puppetsrv is CoreDNS with the puppetsrv plugin compiled in and only
// the other plugins that an authoritative server needs. Its flags are CoreDNS's.
package main

import (
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/puppetsrv/puppetsrv/internal/release"
)

// before is the plugin in front of which puppetsrv runs: behind everything that
// works on other plugins' answers (prometheus, acl, cache, dnssec, transfer),
// and ahead of everything that would answer for its zones.
const before = "file"

// directives are CoreDNS's own, in their order, as far as they are compiled in,
// with puppetsrv in its place.
func directives() []string {
	registered := caddy.ListPlugins()["others"]
	have := func(name string) bool { return slices.Contains(registered, "dns."+name) }
	var names []string
	for _, name := range dnsserver.Directives {
		if name == before {
			names = append(names, "puppetsrv")
		}
		if have(name) {
			names = append(names, name)
		}
	}
	return names
}

func main() {
	if err := dnsserver.SetDirectives(directives()); err != nil {
		clog.Fatalf("%s", err)
	}
	caddy.AppName = "puppetsrv"
	// The part in brackets is the CoreDNS it is made of.
	caddy.AppVersion = release.Version + " (" + coremain.CoreName + "-" + coremain.CoreVersion + ")"
	coremain.Run()
}
