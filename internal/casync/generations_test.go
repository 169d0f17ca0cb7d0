package casync_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/casync"
)

// From whatever a standby has, the answer leads to what the source has, and says no more
// than it must.
func TestGenerations(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := casync.NewGenerations()
		files := map[string]string{"serial": "1"}
		type known struct {
			generation uint64
			files      []cadir.File
		}
		var all []known
		for range rapid.IntRange(1, 12).Draw(rt, "sets") {
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				name := fmt.Sprintf("signed/%c.pem", rapid.IntRange('a', 'f').Draw(rt, "name"))
				if rapid.Bool().Draw(rt, "remove") {
					delete(files, name)
				} else {
					files[name] = fmt.Sprint(rapid.IntRange(0, 3).Draw(rt, "content"))
				}
			}
			set := &cadir.Set{}
			for name, content := range files {
				set.Files = append(set.Files, cadir.File{Path: name, Size: 1, Sum: cadir.SumOf([]byte(content))})
			}
			slices.SortFunc(set.Files, func(a, b cadir.File) int { return strings.Compare(a.Path, b.Path) })
			set.Hash = cadir.HashOf(set.Files)
			g.Take(set)
			generation, _ := g.Since("", 0)
			all = append(all, known{generation, set.Files})
		}
		last := all[len(all)-1]
		for i, k := range all {
			full, changed, removed := g.Answer(k.generation)
			if full {
				rt.Fatalf("from generation %d of %d: all files", k.generation, last.generation)
			}
			if k.generation == last.generation && len(changed)+len(removed) > 0 {
				rt.Fatalf("nothing has changed, and it says %v, %v", changed, removed)
			}
			if got := casync.Changes(k.files, changed, removed); !slices.Equal(got, last.files) {
				rt.Fatalf("from set %d: %v, want %v", i, got, last.files)
			}
		}
		if full, changed, _ := g.Answer(last.generation + 1); !full || !slices.Equal(changed, last.files) {
			rt.Fatal("from a generation that never was: not all files")
		}
		if _, full := g.Since("another", last.generation); !full {
			rt.Fatal("in another session: not all files")
		}
	})
}
