package node

import (
	"errors"
	"slices"
	"sync"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// The registry is process-wide, and the only such state: during a Corefile
// reload CoreDNS runs the new instance's OnStartup while the old one still
// serves, and its Instance.Storage does not pass anything on. A runtime is kept
// while anyone holds it, so an unchanged configuration keeps its evidence, its
// prober and its snapshot; a changed one inherits the evidence.
var registry = struct {
	sync.Mutex
	nodes []*entry
	dirs  map[string]*stateDir
	// since holds what was acquired since the last BeginReload, newest last.
	since []*Handle
}{dirs: make(map[string]*stateDir)}

type entry struct {
	node *Node
	dir  *stateDir
	refs int
}

// stateDir is shared by the runtimes, old and new, that keep state in it.
type stateDir struct {
	path    string
	lock    *store.Lock // nil if the directory could not be used
	serials *store.Serials
	refs    int
}

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
	entry *entry
	once  sync.Once
}

// Acquire returns the runtime for cfg, starting it if there is none with its key.
// It fails only if another process uses the state directory; a directory that
// cannot be used otherwise is logged, and everything goes on without it.
func Acquire(cfg Config) (*Handle, error) {
	registry.Lock()
	defer registry.Unlock()
	i := slices.IndexFunc(registry.nodes, func(e *entry) bool { return e.node.cfg.Key == cfg.Key })
	var e *entry
	if i >= 0 {
		e = registry.nodes[i]
	} else {
		dir, err := acquireDir(cfg.State, cfg.Log)
		if err != nil {
			return nil, err
		}
		seed := make(map[identity]health.State)
		for _, old := range registry.nodes {
			old.node.evidence(seed)
		}
		e = &entry{node: newNode(cfg, dir.serials, seed), dir: dir}
		registry.nodes = append(registry.nodes, e)
	}
	e.refs++
	h := &Handle{Node: e.node, entry: e}
	registry.since = append(registry.since, h)
	return h, nil
}

// Release gives the hold up; the last one stops the runtime. The handle's
// snapshot stays: CoreDNS runs OnShutdown before its servers stop, and queries
// still come. Calling it again does nothing.
func (h *Handle) Release() {
	h.once.Do(func() {
		registry.Lock()
		defer registry.Unlock()
		h.release()
	})
}

// release is Release with the registry locked.
func (h *Handle) release() {
	registry.since = slices.DeleteFunc(registry.since, func(o *Handle) bool { return o == h })
	if h.entry.refs--; h.entry.refs > 0 {
		return
	}
	h.entry.node.stop()
	registry.nodes = slices.DeleteFunc(registry.nodes, func(e *entry) bool { return e == h.entry })
	releaseDir(h.entry.dir)
}

// BeginReload is called when a server is about to reload: what is acquired from
// here on belongs to the new instance.
func BeginReload() {
	registry.Lock()
	defer registry.Unlock()
	registry.since = nil
}

// AbortReload is called when that reload failed. CoreDNS drops the new instance
// without running its OnShutdown, so what it acquired is released here.
func AbortReload() {
	registry.Lock()
	leaked := registry.since
	registry.since = nil
	registry.Unlock()
	for _, h := range leaked {
		h.Release()
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
	if n.cfg.Probe == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, t := range n.cfg.Probe.Targets {
		seed[identityOf(t)] = n.states[i]
	}
}

// acquireDir opens a state directory, or joins those who have it open.
func acquireDir(path string, log Logger) (*stateDir, error) {
	if path == "" {
		return &stateDir{serials: store.OpenSerials(""), refs: 1}, nil
	}
	if d, ok := registry.dirs[path]; ok {
		d.refs++
		return d, nil
	}
	d := &stateDir{path: path, refs: 1}
	lock, err := store.LockDir(path)
	switch {
	case errors.Is(err, store.ErrLocked):
		return nil, err
	case err != nil:
		log.Errorf("Nothing is durable, answers go on: %s", err)
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

func releaseDir(d *stateDir) {
	if d.refs--; d.refs > 0 {
		return
	}
	delete(registry.dirs, d.path)
	d.serials.Close()
	if d.lock != nil {
		d.lock.Unlock()
	}
}
