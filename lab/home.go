//go:build linux

package main

import (
	"fmt"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// goHome makes m1 the camaster again, whatever a scenario that has failed has left.
func goHome(t *T) error {
	ctx := t.Context()
	t.Heal()
	if ctx.Err() != nil {
		return nil // it was asked to end
	}
	var dark []*stack.Host
	for _, h := range t.All() {
		if name := h.Short; (name == "ns1" || name == "m1" || name == "m2") && t.Dark(h) {
			dark = append(dark, h)
		}
	}
	if err := t.On(ctx, dark...); err != nil {
		return err
	}
	if t.CNAME(ctx, "ns2", stack.Camaster) == "m1."+stack.Domain {
		return nil
	}
	return stack.Until(ctx, "m1 is the camaster", func() error {
		if roleOf(t, "ns2", "m1") == "closed" {
			t.Ctl(ctx, "ns2", "rejoin", "m1."+stack.Domain)
		}
		if _, r := move(t, "ns2", "switchover", "m1", "the scenario has ended"); !r.OK() {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}
