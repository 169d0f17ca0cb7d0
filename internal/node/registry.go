package node

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// The registry is process-wide, and the only such state: during a Corefile
// reload CoreDNS runs the new instance's OnStartup while the old one still
// serves, and its Instance.Storage does not pass anything on. A runtime is kept
// while anyone holds it, so an unchanged configuration keeps its evidence, its
// prober and its snapshot; a changed one inherits the evidence.
//
// The end of a runtime and its last write are waited for outside the lock: a disk
// that hangs must not stop the reload that leads away from it. A start is made
// within, so that two instances cannot start the same runtime.
var registry = struct {
	sync.Mutex
	nodes       []*entry
	dirs        map[string]*stateDir
	handles     []*Handle
	memberships map[*stateDir]*membership
}{dirs: make(map[string]*stateDir), memberships: make(map[*stateDir]*membership)}

type entry struct {
	node *Node
	dir  *stateDir
	refs int
}

// stateDir is shared by the runtimes, old and new, that keep state in it; those
// that keep it in memory share "". So a zone's serial goes on over a reload.
type stateDir struct {
	path    string
	lock    *store.Lock // nil if the directory could not be used
	serials *store.Serials
	// registers are opened by the first cluster in it.
	registers *cluster.Registers
	refs      int
}

// closing is how long a state directory's last write is waited for.
const closing = 2 * time.Second

// identity is what evidence is about: it holds for another configuration that
// looks at the same.
type identity struct {
	subject, name string
	port          uint16
}

func identityOf(t probe.Target) identity { return identity{t.Subject, t.Name, t.Port} }

// Handle is one hold on a runtime.
type Handle struct {
	*Node
	entry   *entry
	owner   any
	cancels []func() // of its subscriptions; the registry's lock guards it
}

// Acquire returns the runtime for cfg, starting it if there is none with its key.
// owner is who holds it; see Sweep. It fails only if another process uses the state
// directory; a directory that cannot be used otherwise is logged, and everything
// goes on without it.
func Acquire(cfg Config, owner any) (*Handle, error) {
	registry.Lock()
	e, unused, err := acquire(&cfg, owner)
	if err != nil {
		registry.Unlock()
		if unused != nil {
			releaseDir(unused)
		}
		return nil, err
	}
	defer registry.Unlock()
	e.refs++
	h := &Handle{Node: e.node, entry: e, owner: owner}
	registry.handles = append(registry.handles, h)
	return h, nil
}

// acquire finds or starts the runtime for cfg. With an error it returns a state
// directory that is to be released, if there is one. The registry is locked.
func acquire(cfg *Config, owner any) (e *entry, unused *stateDir, err error) {
	if i := slices.IndexFunc(registry.nodes, func(e *entry) bool { return e.node.cfg.Key == cfg.Key }); i >= 0 {
		return registry.nodes[i], nil, nil
	}
	dir, err := acquireDir(cfg.State, cfg.Log)
	if err != nil {
		return nil, nil, err
	}
	var m *membership
	if cfg.Cluster != nil {
		if err = exclusive(dir, owner); err == nil {
			m, err = join(cfg, dir)
		}
		if err != nil {
			return nil, dir, err
		}
	}
	seed := make(map[identity]health.State)
	for _, old := range registry.nodes {
		old.node.evidence(seed)
	}
	e = &entry{node: newNode(*cfg, dir.serials, m, seed), dir: dir}
	if m != nil {
		m.hold(e.node)
	}
	registry.nodes = append(registry.nodes, e)
	return e, nil, nil
}

// exclusive says no to a second runtime of one owner in one cluster: their
// registers would be the same. Over a reload owners differ.
func exclusive(dir *stateDir, owner any) error {
	for _, h := range registry.handles {
		if h.owner == owner && h.entry.dir == dir && h.entry.node.m != nil {
			return fmt.Errorf("zone %s has a cluster in the same state directory, %s: give each a directory of its own", h.entry.node.cfg.Name, dir.path)
		}
	}
	return nil
}

// Subscribe is Node.Subscribe until the handle is released.
func (h *Handle) Subscribe(f func(origins []string)) {
	cancel := h.Node.Subscribe(f)
	registry.Lock()
	defer registry.Unlock()
	h.cancels = append(h.cancels, cancel)
}

// Release gives the hold up; the last one stops the runtime. The handle's
// snapshot stays: CoreDNS runs OnShutdown before its servers stop, and queries
// still come. Calling it again does nothing.
func (h *Handle) Release() {
	registry.Lock()
	i := slices.Index(registry.handles, h)
	if i < 0 {
		registry.Unlock()
		return
	}
	registry.handles = slices.Delete(registry.handles, i, i+1)
	cancels := h.cancels
	h.entry.refs--
	last := h.entry.refs == 0
	if last {
		registry.nodes = slices.DeleteFunc(registry.nodes, func(e *entry) bool { return e == h.entry })
		if m := h.entry.node.m; m != nil {
			m.release(h.entry.node) // bounded, also where a disk hangs
		}
	}
	registry.Unlock()
	for _, cancel := range cancels {
		cancel()
	}
	if last {
		h.entry.node.stop()
		releaseDir(h.entry.dir)
	}
}

// Sweep releases what is held by owners that are gone. A server instance that
// fails to start is dropped by CoreDNS without its OnShutdown being run.
func Sweep(alive func(owner any) bool) {
	registry.Lock()
	handles := slices.Clone(registry.handles)
	registry.Unlock()
	for _, h := range handles {
		if !alive(h.owner) {
			h.Release()
		}
	}
}

// All returns the running runtimes, the newest first.
func All() []*Node {
	registry.Lock()
	defer registry.Unlock()
	nodes := make([]*Node, 0, len(registry.nodes))
	for _, e := range slices.Backward(registry.nodes) {
		nodes = append(nodes, e.node)
	}
	return nodes
}

// evidence adds the runtime's states to seed.
func (n *Node) evidence(seed map[identity]health.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.Copy(seed, n.states)
}

// acquireDir opens a state directory, or joins those who have it open.
func acquireDir(path string, log Logger) (*stateDir, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil && path != "" {
		path = real // two spellings are one directory
	}
	if d, ok := registry.dirs[path]; ok {
		d.refs++
		return d, nil
	}
	d := &stateDir{path: path, refs: 1}
	if path == "" {
		d.serials = store.OpenSerials("")
		registry.dirs[path] = d
		return d, nil
	}
	lock, err := store.LockDir(path)
	switch {
	case errors.Is(err, store.ErrLocked):
		return nil, err
	case err != nil:
		log.Errorf("Nothing is durable, answers go on; repair this and restart: %s", err)
		d.serials = store.UnusableSerials(err)
	default:
		d.lock = lock
		d.serials = store.OpenSerials(path)
		if err := d.serials.Err(); err != nil {
			log.Errorf("%s", err)
		}
	}
	registry.dirs[path] = d
	return d, nil
}

// releaseDir closes a state directory that nobody needs, when its last write has
// ended; if that hangs it stays open, and whoever needs it again joins it.
// Runtimes that go on with it look at their serials: the one that ended may have
// given out newer ones.
func releaseDir(d *stateDir) {
	registry.Lock()
	d.refs--
	last := d.refs == 0
	for _, e := range registry.nodes {
		if e.dir == d {
			e.node.kick()
		}
	}
	registry.Unlock()
	if !last {
		return
	}
	_ = d.serials.Close(closing) // what went wrong with the disk was said before
	idle := d.registers == nil || d.registers.Close(closing)
	registry.Lock()
	defer registry.Unlock()
	if d.refs > 0 || !idle || !d.serials.Idle() || registry.dirs[d.path] != d {
		return
	}
	delete(registry.dirs, d.path)
	if d.lock != nil {
		d.lock.Unlock()
	}
}
