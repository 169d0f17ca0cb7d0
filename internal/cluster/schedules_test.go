package cluster_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// Clusters of two to five are split in every way that leaves two parts; both write,
// and both think that they have everybody who lives. Healed, all have the same, and
// the loser is a conflict to each of them.
func TestEverySplit(t *testing.T) {
	most := 5
	if raced {
		most = 3
	}
	for n := 2; n <= most; n++ {
		t.Run(fmt.Sprintf("nodes=%d", n), func(t *testing.T) {
			bubble(t, n, func(t *testing.T, s *site) {
				for split := 1; split < 1<<(n-1); split++ { // node n is on the right
					var left, right []string
					for i := range n {
						if split&(1<<i) != 0 {
							left = append(left, nodeName(i+1))
						} else {
							right = append(right, nodeName(i+1))
						}
					}
					s.network.Partition(addrs(s, left...), addrs(s, right...))
					time.Sleep(time.Minute)
					l := s.write(left[0], flip("m1.example.net.", "left"))
					r := s.write(right[0], flip("m2.example.net.", "right"))
					if !l.Met || !r.Met || l.Entry.Parent != r.Entry.Parent {
						t.Errorf("split %v %v: %+v, %+v", left, right, l, r)
					}
					s.network.Heal()
					begin := time.Now()
					s.until(fmt.Sprintf("all agree after %v %v", left, right), 20*time.Second, func() bool {
						_, ok := s.agree()
						return ok && s.oneHistory()
					})
					t.Logf("%v %v: agreed after %v", left, right, time.Since(begin))
					winner, loser := l.Entry, r.Entry
					if winner.Compare(&loser) < 0 {
						winner, loser = loser, winner
					}
					for name, c := range s.nodes {
						h := c.Registers().History("camaster")
						u := register.Unknown(h, &h[0])
						if h[0].Version != winner.Version || len(u) != 1 || u[0].Version != loser.Version {
							t.Errorf("split %v %v: %s has %s, and the conflicts %v", left, right, name, h[0].Version, u)
						}
					}
				}
			})
		})
	}
}

// oneHistory reports whether all nodes hold the same, to the byte.
func (s *site) oneHistory() bool {
	var all []string
	for _, c := range s.nodes {
		all = append(all, content(c.Registers()))
	}
	return len(slices.Compact(all)) == 1
}

// A flip is on all of fifty nodes within a second, over a network that takes up to
// 40 ms one way and loses a packet in a hundred.
func TestFiftyNodes(t *testing.T) {
	n, flips := 50, 10
	if raced {
		n, flips = 12, 5
	}
	bubble(t, n, func(t *testing.T, s *site) {
		s.network.SetFaults(gossiptest.Faults{Loss: 0.01, MinDelay: time.Millisecond, MaxDelay: 40 * time.Millisecond})
		var held, acked []time.Duration
		for i := range flips {
			begin := time.Now()
			done := make(chan cluster.Result, 1)
			go func() { done <- s.write(nodeName(1+i%n), flip(fmt.Sprintf("m%d.example.net.", i), "drill")) }()
			want := fmt.Sprintf("m%d.example.net. 0.%d.%s", i, i+1, nodeName(1+i%n))
			s.until("all have "+want, time.Minute, func() bool { got, ok := s.agree(); return ok && got == want })
			held = append(held, time.Since(begin))
			if r := <-done; !r.Met || len(r.Answers) != n-1 {
				t.Errorf("flip %d: met %v with %d answers", i, r.Met, len(r.Answers))
			}
			acked = append(acked, time.Since(begin))
		}
		slices.Sort(held)
		slices.Sort(acked)
		t.Logf("%d flips on %d nodes, simulated: on all after %v (median), %v (most); acknowledged by all after %v, %v",
			flips, n, held[flips/2], held[flips-1], acked[flips/2], acked[flips-1])
		if most := held[flips-1]; most > time.Second {
			t.Errorf("a flip was on all after %v", most)
		}
	})
}

// Two writers at once. On one node, of two that expect the same version exactly one
// wins. On two nodes both may be acknowledged, and there is one order: the loser is
// in the history, as a conflict.
func TestTwoWritersAtOnce(t *testing.T) {
	rounds := 60
	if raced {
		rounds = 15
	}
	for n := 2; n <= 5; n++ {
		t.Run(fmt.Sprintf("nodes=%d", n), func(t *testing.T) {
			bubble(t, n, func(t *testing.T, s *site) {
				s.network.SetFaults(gossiptest.Faults{MaxDelay: 5 * time.Millisecond})
				conflicts, refused := 0, 0
				for round := range rounds {
					one, other := nodeName(1), nodeName(1+round%n)
					current := s.nodes[one].Registers().Version("camaster")
					var r [2]cluster.Result
					var errs [2]error
					var both sync.WaitGroup
					for i, name := range []string{one, other} {
						ch := flip(fmt.Sprintf("m%d.example.net.", i), "drill")
						ch.Expect = &current
						both.Go(func() {
							time.Sleep(time.Duration(round/n*i) * 200 * time.Microsecond)
							r[i], errs[i] = s.nodes[name].Write(t.Context(), ch, cluster.WaitAll)
						})
					}
					both.Wait()
					s.until("all agree", 20*time.Second, s.oneHistory)
					h := s.nodes[one].Registers().History("camaster")
					u := register.Unknown(h, &h[0])
					switch {
					case errs[0] != nil && errs[1] != nil:
						t.Fatalf("round %d: %v, and %v", round, errs[0], errs[1])
					case errs[0] == nil && errs[1] == nil:
						if one == other {
							t.Errorf("round %d: %s took both %s and %s", round, one, r[0].Entry.Version, r[1].Entry.Version)
						}
						winner, loser := r[0].Entry, r[1].Entry
						if winner.Compare(&loser) < 0 {
							winner, loser = loser, winner
						}
						if h[0].Version != winner.Version || len(u) != 1 || u[0].Version != loser.Version {
							t.Errorf("round %d: %s over %s: the conflicts are %v", round, winner.Version, loser.Version, u)
						}
						conflicts++
					default:
						if len(u) != 0 || h[0].Parent != current {
							t.Errorf("round %d: one was refused, and there is the conflict %v", round, u)
						}
						refused++
					}
				}
				t.Logf("%d rounds: %d conflicts, %d refused", rounds, conflicts, refused)
				if conflicts == 0 || refused == 0 {
					t.Error("the writers were never at once, or always")
				}
			})
		})
	}
}
