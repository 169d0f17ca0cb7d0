package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// streams counts the event streams under way.
type streams struct {
	all, each int // limits

	mu     sync.Mutex
	open   int
	actors map[string]int
}

func newStreams(l Limits) *streams {
	return &streams{all: l.Streams, each: max(l.Streams/8, 1), actors: make(map[string]int)}
}

// enter takes a place for a stream of an actor; leave gives it back.
func (s *streams) enter(actor string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.all || s.actors[actor] >= s.each {
		return false
	}
	s.open++
	s.actors[actor]++
	return true
}

func (s *streams) leave(actor string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.actors[actor]--; s.actors[actor] == 0 {
		delete(s.actors, actor)
	}
}

// queue is what waits for a reader. A backend fills it, one stream empties it.
type queue struct {
	limit int
	ready chan struct{} // has a value when there is something to look at

	mu     sync.Mutex
	events []Event
	full   bool
}

func newQueue(limit int) *queue { return &queue{limit: limit, ready: make(chan struct{}, 1)} }

// put never blocks. Once it had no room the queue is of no more use.
func (q *queue) put(e Event) {
	q.mu.Lock()
	if len(q.events) < q.limit {
		q.events = append(q.events, e)
	} else {
		q.full = true
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue) take() (events []Event, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, q.events = q.events, nil
	return events, q.full
}

// stream sends events until the client or the server goes, the reader is too slow,
// or the caller may no longer read.
func (s *Server) stream(r *request) error {
	after, err := lastEvent(r)
	if err != nil {
		return err
	}
	if !s.streams.enter(r.caller.actor()) {
		r.writer.Header().Set("Retry-After", "10")
		return refuse(http.StatusServiceUnavailable, "too-many-streams",
			"%d event streams are open already, or %d of %s", s.streams.all, s.streams.each, r.caller.actor())
	}
	defer s.streams.leave(r.caller.actor())

	out := &eventWriter{w: r.writer, control: http.NewResponseController(r.writer), stall: s.limits.Stall}
	r.writer.Header().Set("Content-Type", mediaEvents)
	if r.Method == http.MethodHead {
		return nil
	}
	if out.comment("puppetsrv") != nil {
		return nil
	}
	beat := time.NewTicker(s.limits.Heartbeat)
	defer beat.Stop()
	for {
		backend, changed := s.current()
		if backend == nil || !s.follow(r, backend, changed, &after, out, beat.C) {
			return nil
		}
	}
}

// follow sends the events of one backend. It is true when there is another one.
func (s *Server) follow(r *request, b Backend, changed <-chan struct{}, after *uint64, out *eventWriter, beat <-chan time.Time) bool {
	q := newQueue(s.limits.Queue)
	cancel := b.Events(*after, q.put)
	defer cancel()
	for {
		select {
		case <-s.closing:
			return false
		case <-r.Context().Done():
			return false
		case <-changed:
			return true
		case <-beat:
			if !s.stillAllowed(r) || out.comment("") != nil {
				return false
			}
		case <-q.ready:
			if !s.stillAllowed(r) {
				return false
			}
			events, full := q.take()
			if out.events(events) != nil {
				s.log.warn(remoteHost(r.Request), "admin: the event stream of %s from %s ended: it does not read", r.caller.actor(), r.RemoteAddr)
				return false
			}
			if full {
				s.log.warn(remoteHost(r.Request), "admin: the event stream of %s from %s ended: it reads too slowly, %d events waited", r.caller.actor(), r.RemoteAddr, s.limits.Queue)
				return false
			}
			if n := len(events); n > 0 {
				*after = events[n-1].ID
			}
		}
	}
}

// stillAllowed asks again who reads: a stream is open for longer than a certificate
// may be good.
func (s *Server) stillAllowed(r *request) bool {
	c, fault := s.identify(r.Request)
	if fault == nil {
		fault = s.authorise(c, false)
	}
	if fault != nil {
		s.log.warn(remoteHost(r.Request), "admin: the event stream of %s from %s ended: %s", c.actor(), r.RemoteAddr, fault.Detail)
	}
	return fault == nil
}

// lastEvent is the number of the last event that the client has. A browser repeats
// the URL when it connects again, so the header is the newer one.
func lastEvent(r *request) (uint64, error) {
	name, value := "Last-Event-ID", r.Header.Get("Last-Event-ID")
	if value == "" {
		name, value = "after", r.FormValue("after")
	}
	if value == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, bad(name, "%.50q: want the number of an event", value)
	}
	return n, nil
}

// eventWriter writes server-sent events (WHATWG HTML, 9.2).
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
}

// events writes and flushes.
func (o *eventWriter) events(events []Event) error {
	var b bytes.Buffer
	for _, e := range events {
		data, err := json.Marshal(canonical(e))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, data)
	}
	return o.write(b.Bytes())
}

// comment writes a line that readers pass over.
func (o *eventWriter) comment(text string) error { return o.write([]byte(": " + text + "\n\n")) }

func (o *eventWriter) write(data []byte) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(o.stall)); err != nil {
		return err
	}
	if _, err := o.w.Write(data); err != nil {
		return err
	}
	return o.control.Flush()
}
