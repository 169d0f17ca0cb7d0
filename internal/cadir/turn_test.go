package cadir

import (
	"testing"

	"pgregory.net/rapid"
)

// Hosts that open one CA in any order, each knowing as little as it likes of what the
// others have signed, never sign from one block of serials; as long as none signs more
// than a block holds without anybody getting to know.
func TestPropertyTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		turns := rapid.Uint64Range(2, 5).Draw(t, "hosts")
		gap := rapid.Uint64Range(1, 2000).Draw(t, "gap")
		type host struct{ serial uint64 } // the next, as it knows
		hosts := make([]host, turns)
		first := rapid.Uint64Range(1, 10000).Draw(t, "first")
		for i := range hosts {
			hosts[i].serial = first
		}
		signed := make(map[uint64]uint64) // by whom, one more
		for range rapid.IntRange(1, 30).Draw(t, "openings") {
			i := rapid.Uint64Range(0, turns-1).Draw(t, "opens")
			o := Options{Turn: i, Turns: turns}
			if rapid.Bool().Draw(t, "learns") {
				j := rapid.Uint64Range(0, turns-1).Draw(t, "from")
				hosts[i].serial = max(hosts[i].serial, hosts[j].serial)
			}
			to := o.turn(hosts[i].serial+gap, gap)
			if to < hosts[i].serial+gap {
				t.Fatalf("from %d to %d with a gap of %d", hosts[i].serial, to, gap)
			}
			hosts[i].serial = to
			for range rapid.Uint64Range(0, min(gap, 50)).Draw(t, "signs") {
				if by := signed[hosts[i].serial]; by != 0 {
					t.Fatalf("host %d signs %d, which host %d has signed", i, hosts[i].serial, by-1)
				}
				signed[hosts[i].serial] = i + 1
				hosts[i].serial++
			}
		}
	})
	if got := (&Options{}).turn(1234, 1000); got != 1234 {
		t.Errorf("alone: %d", got)
	}
}
