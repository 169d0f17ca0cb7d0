//go:build linux

package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// picksScript draws with Puppet's own picker.
//
//go:embed picks.rb
var picksScript string

// orders are how often each order of masters' names was drawn, each joined by spaces.
type orders map[string]int

// unlikely is what chi-square with one degree of freedom exceeds once in 100000 times.
const unlikely = 19.5

// startPicks has an agent's host draw masters for services, so many times each.
func startPicks(t *T, h *stack.Host, draws int, services ...string) (wait func() map[string]orders) {
	const path = "/var/lib/lab/picks.rb"
	t.Must(h.Write(path, picksScript, 0o644, "root"))
	p := h.Start(t.Context(), append([]string{"ruby", path, stack.DomainOf(h.Datacenter), strconv.Itoa(draws)}, services...)...)
	return func() (all map[string]orders) {
		r := p.Wait()
		t.Must(r.Error())
		if err := json.Unmarshal([]byte(r.Out), &all); err != nil {
			t.Fatalf("%v: %v", err, r)
		}
		return all
	}
}

// at counts who was drawn in a place, 0 the first.
func (o orders) at(place int) map[string]int {
	count := make(map[string]int)
	for order, n := range o {
		if names := strings.Fields(order); place < len(names) {
			count[names[place]] += n
		}
	}
	return count
}

// outOf counts the draws in which the names were not exactly the first ones, in any order.
func (o orders) outOf(first []string) (bad int) {
	want := slices.Sorted(slices.Values(first))
	for order, n := range o {
		names := strings.Fields(order)
		if len(names) < len(want) || !slices.Equal(slices.Sorted(slices.Values(names[:len(want)])), want) {
			bad += n
		}
	}
	return bad
}

// even is chi-square of two counts that should be the same.
func even(a, b int) float64 {
	if a+b == 0 {
		return 0
	}
	return float64((a-b)*(a-b)) / float64(a+b)
}

// shares is what is said of a place: who was drawn there how often.
func shares(count map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(count)) {
		all = append(all, fmt.Sprintf("%s %d", label(name), count[name]))
	}
	return strings.Join(all, ", ")
}

// label is the first one of a name.
func label(name string) string {
	first, _, _ := strings.Cut(name, ".")
	return first
}
