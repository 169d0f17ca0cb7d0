package casync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Dir *cadir.Dir
	// Source says why this host's CA is not to be had: nil while it is the camaster, open
	// or handing over. It is called often, also while requests wait.
	Source func() error
	// Replicas reports whether a certname may have the CA's files, its key among them.
	Replicas func(certname string) bool
	// Client is the certname of who asks; nil: of the certificate that TLS has verified.
	Client   func(r *http.Request) (certname string, err error)
	InfraCRL bool         // masters get infra_crl.pem: enable-infra-crl in ca.conf
	Rate     int64        // bytes/s of the CA's files, and as much of CRLs; 0: 32 MiB/s
	Streams  int          // answers with the CA's files at the same time; 0: 4
	Waiting  int          // requests that wait at the same time; 0: 20 000
	Log      *slog.Logger // nil: none
}

// Bounds of a Server.
const (
	glance    = 200 * time.Millisecond // between two looks at the cadir while somebody waits
	patience  = 10 * time.Second       // for a stream's turn
	lookTime  = 30 * time.Second       // for a look at the cadir
	writeTime = 30 * time.Second       // for a piece of an answer
	piece     = 32 << 10               // bytes
)

// Server serves a camaster's CA under mutual TLS, which its user does. It serves sets
// that verify, and only while its host is the camaster.
type Server struct {
	c       ServerConfig
	streams chan struct{}
	files   *rate.Limiter
	crls    *rate.Limiter
	refused rate.Sometimes // of what is logged

	mu       sync.Mutex
	history  generations
	err      error         // why there is no set now
	changed  chan struct{} // closed when history or err changes
	waiting  int
	watching bool // a goroutine looks, while anyone waits

	stats struct{ files, bytes, crls, refused atomic.Uint64 }
}

// NewServer checks a configuration.
func NewServer(c ServerConfig) (*Server, error) {
	if c.Dir == nil || c.Source == nil || c.Replicas == nil {
		return nil, errors.New("serving the CA: it needs a cadir, whether this host is its source, and who may have it")
	}
	if c.Client == nil {
		c.Client = peer
	}
	if c.Rate <= 0 {
		c.Rate = 32 << 20
	}
	if c.Streams <= 0 {
		c.Streams = 4
	}
	if c.Waiting <= 0 {
		c.Waiting = 20_000
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	limit := func() *rate.Limiter { return rate.NewLimiter(rate.Limit(c.Rate), piece) }
	return &Server{
		c: c, streams: make(chan struct{}, c.Streams), files: limit(), crls: limit(),
		refused: rate.Sometimes{First: 3, Interval: time.Minute},
		history: newGenerations(), changed: make(chan struct{}),
	}, nil
}

// ServerStats are counters since the start, and how many there are now.
type ServerStats struct {
	Files, Bytes     uint64 // of the CA that were sent
	CRLs             uint64
	Refused          uint64 // requests of who may not
	Waiting, Streams int
}

// Stats is safe to be called at any time.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	waiting := s.waiting
	s.mu.Unlock()
	return ServerStats{
		Files: s.stats.files.Load(), Bytes: s.stats.bytes.Load(), CRLs: s.stats.crls.Load(),
		Refused: s.stats.refused.Load(), Waiting: waiting, Streams: len(s.streams),
	}
}

// peer is the certname of a verified certificate.
func peer(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", errors.New("show a certificate of the Puppet CA")
	}
	return trust.Certname(r.TLS.PeerCertificates[0]), nil
}

// ServeHTTP answers one request. Who may not have an answer learns nothing else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	handle, private := s.serveCRL, false
	method := http.MethodGet
	switch r.URL.Path {
	case changesPath:
		handle, private = s.serveChanges, true
	case filesPath:
		handle, private, method = s.serveFiles, true, http.MethodPost
	case crlPath:
	default:
		http.NotFound(w, r)
		return
	}
	name, err := s.c.Client(r)
	if err == nil && private && !s.c.Replicas(name) {
		err = fmt.Errorf("%s is none of the replicas of this CA: name it there in the member's configuration", name)
	}
	if err != nil {
		s.stats.refused.Add(1)
		s.refused.Do(func() {
			s.c.Log.Warn("refused to give the CA away", "path", r.URL.Path, "certname", name, "from", r.RemoteAddr, "reason", err)
		})
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		http.Error(w, "use "+method, http.StatusMethodNotAllowed)
		return
	}
	if err := handle(w, r); err != nil {
		var f *fault
		if !errors.As(err, &f) {
			// The answer has begun: the client has to see that it is cut off.
			panic(http.ErrAbortHandler)
		}
		if f.code == http.StatusServiceUnavailable || f.code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, f.Error(), f.code)
	}
}

// fault is a refusal that is still to be answered.
type fault struct {
	code int
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func refuse(code int, format string, args ...any) error {
	return &fault{code, fmt.Errorf(format, args...)}
}

// await returns when ready says so of the newest generation, or wait has passed.
func (s *Server) await(ctx context.Context, wait time.Duration, ready func(*generations) bool) error {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	if err := s.look(ctx); err != nil {
		return err
	}
	for first := true; ; first = false {
		if err := s.c.Source(); err != nil {
			return refuse(http.StatusServiceUnavailable, "%w", err)
		}
		s.mu.Lock()
		err, changed, done := s.err, s.changed, false
		if err == nil {
			done = ready(&s.history)
		}
		if err == nil && !done && first && wait > 0 {
			if s.waiting >= s.c.Waiting {
				err = refuse(http.StatusTooManyRequests, "%d requests wait already", s.waiting)
			} else {
				s.waiting++
				defer s.leave()
				s.watch()
			}
		}
		s.mu.Unlock()
		if err != nil || done || wait <= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timeout.C:
			return s.c.sourceFault()
		case <-changed:
		}
	}
}

func (c ServerConfig) sourceFault() error {
	if err := c.Source(); err != nil {
		return refuse(http.StatusServiceUnavailable, "%w", err)
	}
	return nil
}

func (s *Server) leave() {
	s.mu.Lock()
	s.waiting--
	s.mu.Unlock()
}

// watch has one goroutine look at the cadir for all who wait. It ends with the last of
// them. The caller has locked.
func (s *Server) watch() {
	if s.watching {
		return
	}
	s.watching = true
	go func() {
		for tick := time.NewTicker(glance); ; {
			<-tick.C
			s.mu.Lock()
			if s.waiting == 0 {
				s.watching = false
				s.mu.Unlock()
				tick.Stop()
				return
			}
			s.mu.Unlock()
			_ = s.look(context.Background()) // those who wait are told
			if s.c.Source() != nil {
				s.wake()
			}
		}
	}()
}

// wake has all who wait look again.
func (s *Server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// look takes what the cadir holds now.
func (s *Server) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	set, err := s.c.Dir.Look(ctx)
	if err != nil && ctx.Err() != nil {
		return refuse(http.StatusServiceUnavailable, "%w", err)
	}
	s.mu.Lock()
	was := s.err
	changed := false
	if s.err = nil; err != nil {
		s.err = refuse(http.StatusServiceUnavailable, "%w", err)
	} else {
		changed = s.history.take(set)
	}
	changed = changed || (was == nil) != (err == nil)
	s.mu.Unlock()
	if changed {
		s.wake()
	}
	return nil
}

// waitOf is how long a request may be held.
func waitOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, refuse(http.StatusBadRequest, "wait=%.20q: give a duration such as 30s", text)
	}
	return min(wait, maxWait), nil
}

func generationOf(r *http.Request) (uint64, error) {
	text := r.URL.Query().Get("generation")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, refuse(http.StatusBadRequest, "generation=%.20q: give the number of the last answer", text)
	}
	return n, nil
}

// stream waits for its turn to send the CA's files.
func (s *Server) stream(ctx context.Context) (done func(), err error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case s.streams <- struct{}{}:
		return func() { <-s.streams }, nil
	case <-timeout.C:
		return nil, refuse(http.StatusTooManyRequests, "%d others are being sent the CA's files", cap(s.streams))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
