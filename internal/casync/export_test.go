package casync

import "github.com/puppetsrv/puppetsrv/internal/cadir"

var (
	Acceptable = acceptable
	Blocks     = blocks
	Changes    = changes
)

// Generations are a server's memory.
type Generations struct{ g generations }

func NewGenerations() *Generations { return &Generations{newGenerations()} }

func (g *Generations) Take(s *cadir.Set) { g.g.take(s) }

func (g *Generations) Since(session string, generation uint64) (newest uint64, full bool) {
	h, _ := g.g.since(session, generation)
	return h.Generation, h.Full
}

func (g *Generations) Answer(generation uint64) (full bool, changed []cadir.File, removed []string) {
	h, files := g.g.since(g.g.session, generation)
	return h.Full, files, h.Removed
}
