package node

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Watch is what a runtime reads again when files change while it runs.
type Watch struct {
	// Files are looked at every second.
	Files []string
	// Stamp is what [Stamp] said before they were first read.
	Stamp string
	// Load makes a new plan of them for the same topology, and where to probe its
	// masters now. With an error nothing changes.
	Load func() (*zone.Plan, []probe.Target, error)
}

// watcher remembers what the files looked like. It belongs to the building
// goroutine.
type watcher struct {
	loaded, seen string
}

// Stamp is what files look like from outside; it changes when they do.
func Stamp(files []string) string {
	var b strings.Builder
	for _, path := range files {
		if fi, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%s %d %v\n", path, fi.Size(), fi.ModTime().UnixNano())
		} else {
			fmt.Fprintf(&b, "%s absent\n", path)
		}
	}
	return b.String()
}

// look reads changed files again once they have rested for a second: an editor
// or a copy may be half-way through.
func (n *Node) look() {
	if n.cfg.Watch == nil {
		return
	}
	stamp := Stamp(n.cfg.Watch.Files)
	rested := stamp == n.watched.seen
	n.watched.seen = stamp
	if !rested || stamp == n.watched.loaded {
		return
	}
	n.watched.loaded = stamp
	plan, targets, err := n.cfg.Watch.Load()
	if err != nil {
		n.cfg.Log.Errorf("The zone files of %s have changed and cannot be used, nothing changes: %s", n.cfg.Name, err)
		return
	}
	n.cfg.Log.Infof("The zone files of %s have changed and were read again", n.cfg.Name)
	n.plan.Store(plan)
	n.build()
	if n.prober != nil && !slices.EqualFunc(targets, n.targets, probe.Target.Equal) {
		n.prober.Stop()
		n.startProber(targets)
	}
}
