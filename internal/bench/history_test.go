package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

func TestCompare(t *testing.T) {
	kept := register.Kept("camaster")
	var versions []string
	for i := range kept + 3 {
		versions = append(versions, fmt.Sprintf("0.%d.ns1.example.net", i+1))
	}
	history := func(n int) []admin.Write {
		var writes []admin.Write
		for i := n; i > max(n-kept, 0); i-- {
			writes = append(writes, admin.Write{Version: versions[i-1], To: "m1.example.net"})
		}
		return writes
	}
	changed := func(n int, change func(w []admin.Write)) []admin.Write {
		w := history(n)
		change(w)
		return w
	}
	for _, test := range []struct {
		name   string
		count  int // of the writes that the API knows
		second []admin.Write
		want   string
	}{
		{"none at all", 0, nil, ""},
		{"equal", 3, history(3), ""},
		{"more than are kept", kept + 3, history(kept + 3), ""},
		{"the newest is missing", 3, history(2), "gave out"},
		{"the oldest is missing", 3, history(3)[:2], "gave out"},
		{"nothing", 3, nil, "gave out"},
		{"another order", 2, changed(2, func(w []admin.Write) { w[0], w[1] = w[1], w[0] }), "gave out"},
		{"another value", 2, changed(2, func(w []admin.Write) { w[1].To = "m3.example.net" }), "differ"},
		{"a conflict", 2, changed(2, func(w []admin.Write) { w[1].Conflict = []string{"0.0.ns2.example.net"} }), "conflict"},
	} {
		err := compare(map[string][]admin.Write{"ns1": history(test.count), "ns2": test.second}, versions[:test.count])
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.name, err, test.want)
		}
	}
}

func TestCounter(t *testing.T) {
	const page = "# TYPE a_total counter\na_total{zone=\"example.net.\"} 7\na_total_other{zone=\"example.net.\"} 8\n"
	if n, err := counter(page, "a_total"); err != nil || n != 7 {
		t.Errorf("got %d, error %v; want 7", n, err)
	}
	for _, bad := range []string{"", "a_total{} x\n"} {
		if n, err := counter(bad, "a_total"); err == nil {
			t.Errorf("counter(%q) = %d, want an error", bad, n)
		}
	}
}
