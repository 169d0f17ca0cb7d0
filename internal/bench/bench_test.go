package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestQuantile(t *testing.T) {
	fifty := make([]int, 50)
	for i := range fifty {
		fifty[i] = 50 - i
	}
	for _, test := range []struct {
		values []int
		p      float64
		want   int
	}{
		{nil, 0.5, 0},
		{[]int{7}, 0, 7},
		{[]int{7}, 1, 7},
		{[]int{3, 1, 2}, 0.5, 2},
		{[]int{4, 3, 1, 2}, 0.5, 2},
		{fifty, 0, 1},
		{fifty, 0.5, 25},
		{fifty, 0.98, 49},
		{fifty, 0.99, 50},
		{fifty, 1, 50},
	} {
		if got := quantile(test.values, test.p); got != test.want {
			t.Errorf("quantile(%v, %v) = %d, want %d", test.values, test.p, got, test.want)
		}
	}
	if fifty[0] != 50 {
		t.Error("quantile sorts what it is given")
	}
}

func TestParseSchedstat(t *testing.T) {
	d, err := parseSchedstat("1064613350 4513716 38\n")
	if want := 1064613350 * time.Nanosecond; err != nil || d != want {
		t.Errorf("got %v, error %v; want %v", d, err, want)
	}
	for _, bad := range []string{"", "1 2", "x 2 3", "1 2 3 4"} {
		if d, err := parseSchedstat(bad); err == nil {
			t.Errorf("parseSchedstat(%q) = %v, want an error", bad, d)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const status = "Name:\tpuppetsrv\nVmHWM:\t   30000 kB\nVmRSS:\t   20480 kB\nThreads:\t9\n"
	if n, err := parseStatus(status, "VmRSS"); err != nil || n != 20<<20 {
		t.Errorf("VmRSS: got %d, error %v; want %d", n, err, 20<<20)
	}
	if n, err := parseStatus(status, "VmSwap"); err == nil {
		t.Errorf("VmSwap: got %d, want an error", n)
	}
}

func TestHistogram(t *testing.T) {
	const name = "coredns_puppetsrv_snapshot_build_duration_seconds"
	page := func(small, all int, sum float64) string {
		return fmt.Sprintf(`# TYPE %[1]s histogram
%[1]s_bucket{zone="example.net.",le="0.001"} %[2]d
%[1]s_bucket{zone="example.net.",le="0.002"} %[3]d
%[1]s_bucket{zone="example.net.",le="+Inf"} %[3]d
%[1]s_sum{zone="example.net."} %[4]g
%[1]s_count{zone="example.net."} %[3]d
%[1]s_other 7
`, name, small, all, sum)
	}
	before, err := parseHistogram(page(1, 2, 0.002), name)
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseHistogram(page(2, 3, 0.0025), name)
	if err != nil {
		t.Fatal(err)
	}
	h := after.since(before)
	if h.count != 1 || h.sum != 500*time.Microsecond || h.within(1) != time.Millisecond {
		t.Errorf("one build of 500µs: count %d, sum %v, within %s", h.count, h.sum, h.within(1))
	}
	if h := (histogram{count: 1}); h.within(0.5) != math.MaxInt64 {
		t.Errorf("within(0.5) = %s without any bucket", h.within(0.5))
	}
	for _, bad := range []string{"", name + "_count x\n", page(1, 1, 1) + page(1, 1, 1)} {
		if _, err := parseHistogram(bad, name); err == nil {
			t.Errorf("parseHistogram(%q): want an error", bad)
		}
	}
}

func TestTally(t *testing.T) {
	answer := func(rcode, answers int) []byte {
		m := new(dns.Msg)
		m.SetQuestion("m1.example.net.", dns.TypeA)
		m.Response, m.Rcode = true, rcode
		for range answers {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "m1.example.net.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{127, 0, 0, 1}})
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var got tally
	for _, b := range [][]byte{
		answer(dns.RcodeSuccess, 4), answer(dns.RcodeSuccess, 5),
		answer(dns.RcodeSuccess, 3), answer(dns.RcodeSuccess, 0),
		answer(dns.RcodeServerFailure, 0), answer(dns.RcodeRefused, 0), answer(dns.RcodeNameError, 0), nil,
	} {
		got.add(b, 4)
	}
	if want := (tally{answered: 8, servfail: 1, refused: 1, others: 2, short: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.wrong() != 6 {
		t.Errorf("wrong() = %d, want 6", got.wrong())
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                          "0s",
		412 * time.Nanosecond:      "412ns",
		60612345 * time.Nanosecond: "60.6ms",
		1734567 * time.Microsecond: "1.73s",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %s, want %s", d, got, want)
		}
	}
}

// BenchmarkRender is the in-process part of section rebuild, for profiles.
func BenchmarkRender(b *testing.B) {
	for _, size := range rebuildSizes {
		b.Run(fmt.Sprintf("%d-%d", size.masters, size.datacenters), func(b *testing.B) {
			bench := &bench{ctx: context.Background(), dir: b.TempDir()}
			plan, err := bench.plan(size.masters, size.datacenters)
			if err != nil {
				b.Fatal(err)
			}
			view := plan.NewView(time.Now())
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v := &view.Masters[rand.N(size.masters)].Verdict
				v.Down = !v.Down
				plan.Render(view).Snapshot(map[string]uint32{zoneName + ".": uint32(i + 1)})
			}
		})
	}
}
