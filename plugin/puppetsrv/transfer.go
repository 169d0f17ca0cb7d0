package puppetsrv

import (
	"maps"
	"slices"
	"sync"

	"github.com/coredns/coredns/plugin/transfer"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

var _ transfer.Transferer = (*Puppetsrv)(nil)

// Transfer implements transfer.Transferer: the rendered zone, as one snapshot
// has it. A serial that is not older than ours gets the SOA alone (RFC 1995,
// section 2, with the arithmetic of RFC 1982), an older one the whole zone.
func (p *Puppetsrv) Transfer(origin string, serial uint32) (<-chan []dns.RR, error) {
	z, ok := p.snapshot().Zones[origin]
	if !ok {
		return nil, transfer.ErrNotAuthoritative
	}
	if serial != 0 && !store.Newer(z.Serial, serial) {
		serial = z.Serial // file compares by equality only
	} else {
		serial = 0
	}
	return z.File.Transfer(serial)
}

// notifier sends a NOTIFY for every zone that changed (RFC 1996). Sending waits
// for answers, so it has a goroutine of its own while there is something to
// send; changes that come meanwhile are sent once, together.
type notifier struct {
	send func(origin string) error

	mu      sync.Mutex
	pending map[string]bool
	running bool
	stopped bool
}

func newNotifier(h *node.Handle, x *transfer.Transfer) *notifier {
	t := &notifier{send: x.Notify, pending: make(map[string]bool)}
	h.Subscribe(t.changed) // also ended for an instance that is dropped
	// What a start or a reload changed, nobody has been told of.
	t.changed(slices.Collect(maps.Keys(h.Snapshot().Zones)))
	return t
}

// changed takes the origins of the zones that changed.
func (t *notifier) changed(origins []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range origins {
		t.pending[o] = true
	}
	if !t.running && !t.stopped {
		t.running = true
		go t.run()
	}
}

// run sends until nothing is pending.
func (t *notifier) run() {
	for {
		t.mu.Lock()
		if len(t.pending) == 0 || t.stopped {
			t.running = false
			t.mu.Unlock()
			return
		}
		pending := t.pending
		t.pending = make(map[string]bool)
		t.mu.Unlock()
		for origin := range pending {
			if t.isStopped() {
				break
			}
			if err := t.send(origin); err != nil {
				log.Warningf("%s", err)
			}
		}
	}
}

func (t *notifier) isStopped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopped
}

// stop ends sending after the one under way, for which it does not wait: the
// transfer plugin's time-outs bound it.
func (t *notifier) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
}
