package gossip

import (
	"context"
	"sync"
)

// Bounds of what waits for the delegate.
const (
	maxWaiting      = 1024
	maxWaitingBytes = 32 << 20
)

// inbox stands between memberlist, whose goroutines must not wait, since they
// also refute suspicions, and a delegate that takes its time.
type inbox struct {
	delegate Delegate
	count    *counters
	arrived  chan struct{} // holds one

	mu      sync.Mutex
	waiting []mail
	bytes   int
}

type mail struct {
	content []byte
	state   bool // for Merge, else for Received
}

func newInbox(d Delegate, count *counters) *inbox {
	return &inbox{delegate: d, count: count, arrived: make(chan struct{}, 1)}
}

// put queues content, or drops it where there is no room. It does not block.
func (b *inbox) put(content []byte, state bool) {
	b.mu.Lock()
	full := len(b.waiting) >= maxWaiting || b.bytes+len(content) > maxWaitingBytes
	if !full {
		b.waiting = append(b.waiting, mail{content, state})
		b.bytes += len(content)
	}
	b.mu.Unlock()
	switch {
	case full && state:
		b.count.droppedStates.Add(1)
	case full:
		b.count.droppedMessages.Add(1)
	default:
		select {
		case b.arrived <- struct{}{}:
		default:
		}
	}
}

// take removes the oldest.
func (b *inbox) take() (mail, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		b.waiting = nil // gives the array back
		return mail{}, false
	}
	m := b.waiting[0]
	b.waiting[0] = mail{}
	b.waiting = b.waiting[1:]
	b.bytes -= len(m.content)
	return m, true
}

func (b *inbox) size() (count, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting), b.bytes
}

// deliver hands everything to the delegate, in the order of arrival, until ctx
// ends.
func (b *inbox) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.arrived:
		}
		for ctx.Err() == nil {
			m, ok := b.take()
			if !ok {
				break
			}
			if m.state {
				b.delegate.Merge(m.content)
			} else {
				b.delegate.Received(m.content)
			}
		}
	}
}
