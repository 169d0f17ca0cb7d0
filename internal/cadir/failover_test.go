package cadir_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// Whatever is signed, copied, lost and brought back in whatever order: as long as no more
// is lost than the gap, no serial is issued twice.
func TestNoSerialTwiceOverFailovers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		const gap = 5
		p := newPair(t)
		p.sync(t)
		paths := [2]string{p.Dir, p.path}
		dirs := [2]*cadir.Dir{p.from, p.to}
		for _, d := range dirs {
			d.Hasty()
		}
		camaster, version, behind := 0, 1, 0 // behind: signed since the last copy
		issued := map[uint64]string{3: "m1.example.net"}
		reopen := func(i int) {
			dirs[i] = open(t, paths[i])
			dirs[i].Hasty()
		}
		copyOver := func(replace bool) {
			from, to := camaster, 1-camaster
			q := &pair{site: site{p.CA, paths[from]}, from: dirs[from], path: paths[to], to: dirs[to]}
			must(t, dirs[to].Seal(t.Context()))
			dirs[to].Follow(replace)
			set := q.fetch(t)
			_, err := dirs[to].Replace(t.Context(), set.Files, set.Hash)
			must(t, err)
			dirs[to].NoteSync("x", nil)
			behind = 0
		}
		rt.Repeat(map[string]func(*rapid.T){
			"sign": func(rt *rapid.T) {
				if behind >= gap {
					rt.Skip("more than the gap would be lost")
				}
				ca := *p.CA
				ca.Dir = paths[camaster]
				name := fmt.Sprintf("agent%d.example.net", len(issued))
				n := ca.Sign(t, name)
				if other, ok := issued[n]; ok {
					rt.Fatalf("serial %X for %s, and for %s before", n, name, other)
				}
				issued[n] = name
				behind++
			},
			"copy":    func(*rapid.T) { copyOver(false) },
			"restart": func(rt *rapid.T) { reopen(rapid.IntRange(0, 1).Draw(rt, "host")) },
			"fail over": func(rt *rapid.T) {
				camaster = 1 - camaster
				version++
				// The member may be killed anywhere in between, and does it all again.
				d := dirs[camaster]
				for again := range 1 + rapid.IntRange(0, 1).Draw(rt, "kills") {
					if again > 0 {
						reopen(camaster)
						d = dirs[camaster]
					}
					must(t, d.Seal(t.Context()))
					_, _, err := d.BumpSerial(t.Context(), fmt.Sprint(version), gap)
					must(t, err)
				}
				must(t, d.Unseal(t.Context()))
				// The old one comes back, and rejoins.
				copyOver(true)
			},
		})
		for _, path := range paths {
			if kept, _ := filepath.Glob(path + ".before-*"); len(kept) > 0 && testing.Verbose() {
				rt.Logf("%d kept", len(kept))
			}
		}
	})
}
