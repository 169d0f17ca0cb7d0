package casync

import (
	"crypto/rand"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// maxKept bounds the changes that are remembered: a standby that was away for more
// fetches the whole list.
const maxKept = 20_000

// generations is the history of a set within a session.
type generations struct {
	session string
	number  uint64 // of set
	set     *cadir.Set
	deltas  []delta // the newest last; each leads to one generation
	kept    int     // files in all deltas
}

type delta struct {
	to      uint64
	changed []cadir.File
	removed []string
}

func newGenerations() generations { return generations{session: rand.Text()} }

// take makes a set the newest generation, if it is another one.
func (g *generations) take(set *cadir.Set) (changed bool) {
	if g.set == set {
		return false
	}
	was := g.set
	g.set = set
	if was != nil && was.Hash == set.Hash {
		return false // only times or modes
	}
	g.number++
	if was == nil {
		return true
	}
	d := difference(was.Files, set.Files)
	d.to = g.number
	g.deltas = append(g.deltas, d)
	for g.kept += d.size(); g.kept > maxKept; g.deltas = g.deltas[1:] {
		g.kept -= g.deltas[0].size()
	}
	return true
}

func (d delta) size() int { return len(d.changed) + len(d.removed) + 1 }

// difference leads from one sorted list of files to another.
func difference(from, to []cadir.File) delta {
	var d delta
	for len(from) > 0 || len(to) > 0 {
		n := 0
		switch {
		case len(from) == 0:
			n = 1
		case len(to) == 0:
			n = -1
		default:
			n = strings.Compare(from[0].Path, to[0].Path)
		}
		switch {
		case n < 0:
			d.removed = append(d.removed, from[0].Path)
			from = from[1:]
		case n > 0:
			d.changed = append(d.changed, to[0])
			to = to[1:]
		default:
			if from[0].Sum != to[0].Sum {
				d.changed = append(d.changed, to[0])
			}
			from, to = from[1:], to[1:]
		}
	}
	return d
}

// since is the answer for who has a generation of a session: all, where that is not
// known any more.
func (g *generations) since(session string, generation uint64) (head, []cadir.File) {
	h := head{Session: g.session, Generation: g.number, Hash: g.set.Hash}
	oldest := g.number // that deltas lead on from
	if len(g.deltas) > 0 {
		oldest = g.deltas[0].to - 1
	}
	if session != g.session || generation < oldest || generation > g.number {
		h.Full, h.Files = true, len(g.set.Files)
		return h, g.set.Files
	}
	changed, removed := make(map[string]cadir.File), make(map[string]bool)
	for _, d := range g.deltas {
		if d.to <= generation {
			continue
		}
		for _, f := range d.changed {
			changed[f.Path] = f
			delete(removed, f.Path)
		}
		for _, p := range d.removed {
			removed[p] = true
			delete(changed, p)
		}
	}
	files := make([]cadir.File, 0, len(changed))
	for _, f := range changed {
		files = append(files, f)
	}
	slices.SortFunc(files, byPath)
	for p := range removed {
		h.Removed = append(h.Removed, p)
	}
	slices.Sort(h.Removed)
	h.Files = len(files)
	return h, files
}

func byPath(a, b cadir.File) int { return strings.Compare(a.Path, b.Path) }
