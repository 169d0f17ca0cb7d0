//go:build linux

package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// rulePreference places the router's rules before its routes.
const rulePreference = 100

// Cut drops everything between each host of a and each of b, in both directions and
// without a word, over connections that are open too. Cuts add up until Heal.
func (n *Net) Cut(a, b []*Host) {
	n.t.Helper()
	n.drop(append(pairs(a, b), pairs(b, a)...))
}

// CutOneWay drops everything that hosts of from send to hosts of to.
func (n *Net) CutOneWay(from, to []*Host) {
	n.t.Helper()
	n.drop(pairs(from, to))
}

// Heal ends all cuts.
func (n *Net) Heal() {
	n.t.Helper()
	n.rules("del", n.dropped)
	n.dropped = nil
}

func pairs(from, to []*Host) [][2]netip.Addr {
	var all [][2]netip.Addr
	for _, a := range from {
		for _, b := range to {
			all = append(all, [2]netip.Addr{a.Addr, b.Addr})
		}
	}
	return all
}

func (n *Net) drop(all [][2]netip.Addr) {
	n.t.Helper()
	var fresh [][2]netip.Addr
	for _, pair := range all {
		if !slices.Contains(n.dropped, pair) && !slices.Contains(fresh, pair) {
			fresh = append(fresh, pair)
		}
	}
	n.rules("add", fresh)
	n.dropped = append(n.dropped, fresh...)
}

// rules adds or deletes the rules for pairs, all with one process: a link is cut or
// healed within a few milliseconds. For what a router forwards a blackhole is silent;
// on the sending host itself it would be an error.
func (n *Net) rules(verb string, all [][2]netip.Addr) {
	n.t.Helper()
	var b strings.Builder
	for _, pair := range all {
		fmt.Fprintf(&b, "rule %s preference %d from %s to %s blackhole\n", verb, rulePreference, pair[0], pair[1])
	}
	if err := run(b.String(), "ip", "-n", n.router, "-batch", "-"); err != nil {
		n.t.Fatalf("changing who reaches whom: %v", err)
	}
}
