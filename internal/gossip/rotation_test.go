package gossip_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// A running cluster changes its key, and nobody is lost.
func TestKeysAreRotatedInARunningCluster(t *testing.T) {
	var all []member
	var rings []*gossip.KeyRing
	for i := range 3 {
		cfg := local(i)
		if i > 0 {
			cfg.Join = []string{at(all[0])}
		}
		rings = append(rings, ring(t, "a"))
		cfg.KeyRing = rings[i]
		all = append(all, start(t, cfg))
	}
	together(t, all...)
	lost := make(chan string, 100)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	for _, m := range all {
		watch.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if n := len(m.alive()); n != 3 {
					select {
					case lost <- fmt.Sprintf("%s sees %d", m.Self().Name, n):
					default:
					}
				}
			}
		})
	}
	// Between two steps everybody talks to everybody, and probes: a push/pull
	// comes every two seconds.
	step := func(what string, f func(r *gossip.KeyRing) error) {
		t.Helper()
		for i, r := range rings {
			if err := f(r); err != nil {
				t.Fatal(err)
			}
			for _, from := range all {
				for _, to := range all {
					if err := from.Send(t.Context(), to.Self().Name, fmt.Append(nil, what, i)); err != nil {
						t.Errorf("%s %d: %v", what, i, err)
					}
				}
			}
			for _, m := range all {
				eventually(t, "messages while: "+what, m.owner, func() bool {
					n := 0
					for _, g := range m.got() {
						if g == fmt.Sprint(what, i) {
							n++
						}
					}
					return n == 3
				})
			}
		}
		// And a whole exchange of states with the rings as they now are.
		was := make([]int, len(all))
		for i, m := range all {
			m.note(func() { m.state, was[i] = []byte(what), len(m.merged) })
		}
		for i, m := range all {
			eventually(t, "push/pull after "+what, m.owner, func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return slices.Contains(m.merged[was[i]:], what)
			})
		}
	}
	old := rings[0].Keys()[0].ID
	var id string
	step("add", func(r *gossip.KeyRing) (err error) {
		id, err = r.Add([]byte(strings.Repeat("b", 32)))
		return err
	})
	step("use", func(r *gossip.KeyRing) error { return r.Use(id) })
	step("remove", func(r *gossip.KeyRing) error { return r.Remove(old) })
	close(stop)
	watch.Wait()
	close(lost)
	for l := range lost {
		t.Error(l)
	}
	for _, m := range all {
		if n := m.Stats().Undecipherable; n != 0 {
			t.Errorf("%s could not read %d times", m.Self().Name, n)
		}
	}
}
