package gather

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// part is one thing that is looked at. One look at it is under way at most, by a
// goroutine of its own, so that one that hangs hangs alone; the Gatherer waits for it
// only as long as a look may take. A nil part is not looked at.
type part[T any] struct {
	g       *Gatherer
	name    string
	timeout time.Duration
	do      func(context.Context) T

	mu      sync.Mutex
	running chan struct{} // closed when the look under way ends; nil if none is
	began   time.Time     // of the look under way, or the last one
	last    T
}

func newPart[T any](g *Gatherer, name string, timeout time.Duration, do func(context.Context) T) *part[T] {
	return &part[T]{g: g, name: name, timeout: timeout, do: do}
}

// start begins a look unless one is under way.
func (p *part[T]) start() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		return
	}
	p.running, p.began = make(chan struct{}), time.Now()
	p.g.work.Go(p.run)
}

func (p *part[T]) run() {
	ctx, cancel := context.WithTimeout(p.g.ctx, p.timeout)
	defer cancel()
	v := p.do(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = v
	close(p.running)
	p.running = nil
}

// wait returns what was seen last, and whether the look under way has ended. It waits
// for that until ctx ends, but not for one that had its time before: who hangs costs
// the first look a second, and the next ones nothing.
func (p *part[T]) wait(ctx context.Context) (v T, done bool) {
	p.mu.Lock()
	running, left := p.running, p.timeout-time.Since(p.began)
	p.mu.Unlock()
	if running != nil && left > 0 {
		select {
		case <-running:
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.running == nil
}

// overdue says since when a look has been under way. The text stays the same while it
// is, so that the evidence does.
func (p *part[T]) overdue() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("a look that began at %s has not ended", p.began.UTC().Format("15:04:05Z"))
}

// got is what a part has seen, noted in late if that is not of now.
func got[T any](ctx context.Context, p *part[T], late map[string]bool) (v T) {
	if p == nil {
		return v
	}
	v, done := p.wait(ctx)
	if !done {
		late[p.name] = true
	}
	return v
}
