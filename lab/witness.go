//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// witness tries all the time, on each host that may become camaster, whether its CA signs
// and its PostgreSQL can be written to: on the host itself, whatever DNS says and whatever
// is cut.
type witness struct {
	t    *T
	stop func() // it may be called again

	mu      sync.Mutex
	signed  map[string][]span
	written map[string][]span
	tried   map[string]int // what was refused, by host and kind
}

// span is a request that was granted.
type span struct{ began, ended time.Time }

// The pauses between two tries. What the CA signs stays, and what is written too.
const (
	signPause  = 600 * time.Millisecond
	writePause = 50 * time.Millisecond
)

// watch begins to try. It ends with the scenario, if not before.
func watch(t *T) *witness {
	ctx, cancel := context.WithCancel(t.Context())
	w := &witness{t: t, signed: make(map[string][]span), written: make(map[string][]span), tried: make(map[string]int)}
	var all sync.WaitGroup
	for i, name := range stack.Capable {
		h := t.Host(name)
		all.Go(func() { w.tryCA(ctx, h) })
		all.Go(func() { w.tryDatabase(ctx, h, -int64(i+1)*1_000_000) })
	}
	w.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(w.stop)
	return w
}

func (w *witness) tryCA(ctx context.Context, h *stack.Host) {
	r := stack.Requester{From: h}
	var requests []stack.Request
	for ; ctx.Err() == nil; requests = requests[1:] {
		if len(requests) == 0 {
			var names []string
			for i := range 100 {
				names = append(names, fmt.Sprintf("w%d-%d-%s", time.Now().UnixNano(), i, h.FQDN()))
			}
			var err error
			if requests, err = stack.NewRequests(names...); err != nil {
				w.t.Errorf("%v", err)
				return
			}
		}
		began := time.Now()
		asking, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := r.SignRequest(asking, h, h.FQDN(), requests[0])
		cancel()
		w.note(w.signed, h.Short, "CA", began, err)
		pause(ctx, signPause)
	}
}

func (w *witness) tryDatabase(ctx context.Context, h *stack.Host, id int64) {
	for ; ctx.Err() == nil; id-- {
		began := time.Now()
		err := h.WriteRow(ctx, h, id)
		w.note(w.written, h.Short, "PostgreSQL", began, err)
		pause(ctx, writePause)
	}
}

func (w *witness) note(granted map[string][]span, host, kind string, began time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.tried[host+" "+kind]++
		return
	}
	granted[host] = append(granted[host], span{began, time.Now()})
}

// turns checks, from a time on, that one of two hosts was granted nothing before the last
// that the other one was: ok is false where both could at the same time, or where nothing
// was seen. first and then are how many were granted to each.
func turns(granted map[string][]span, from time.Time, first, then string) (ok bool, nfirst, nthen int) {
	var last, next time.Time
	for _, s := range granted[first] {
		if s.ended.After(from) {
			nfirst++
			last = s.began // granted by then, at the earliest
		}
	}
	for _, s := range granted[then] {
		if s.ended.After(from) {
			if nthen++; next.IsZero() {
				next = s.ended
			}
		}
	}
	return nfirst > 0 && (next.IsZero() || next.After(last)), nfirst, nthen
}
