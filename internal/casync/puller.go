package casync

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// PullerConfig is what a Puller needs.
type PullerConfig struct {
	// Dir is written while it follows (cadir.Dir.Follow), and told what came of it.
	Dir    *cadir.Dir
	Source func() (Source, error) // called often
	TLS    *tls.Config            // own certificate and the CA's; the server's name is set here
	Wait   time.Duration          // that a request is held at the source; 0: 5 s
	Log    *slog.Logger           // nil: none
}

// Puller keeps a standby's CA as the camaster's.
type Puller struct {
	c      PullerConfig
	client *client
	remote remote // what the source was last known to have
	logged string // the failure that was logged last

	mu    sync.Mutex
	stats PullerStats
}

// remote is a source's set, as far as it told.
type remote struct {
	session    string
	generation uint64
	hash       string
	files      []cadir.File // sorted by path
	same       bool         // the cadir was the same when this came
}

// PullerStats are counters since the start.
type PullerStats struct {
	Syncs    uint64 // sets that were taken over
	Failures uint64
	Files    uint64 // that were fetched
	Bytes    uint64
	Removed  uint64    // files that the camaster has no more
	Synced   time.Time // when the CA was last the same as there
}

// NewPuller checks a configuration.
func NewPuller(c PullerConfig) (*Puller, error) {
	if c.Dir == nil || c.Source == nil || c.TLS == nil {
		return nil, errors.New("following the camaster's CA: it needs a cadir, whom to follow, and TLS")
	}
	if c.Wait <= 0 {
		c.Wait = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Puller{c: c}, nil
}

// Stats is safe to be called at any time.
func (p *Puller) Stats() PullerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (p *Puller) count(f func(*PullerStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.stats)
}

// Run follows whoever is to be followed, until ctx ends. A failure is noted in the
// cadir's evidence and tried again, for ever.
func (p *Puller) Run(ctx context.Context) error {
	defer p.forget()
	var pause backoff
	for ctx.Err() == nil {
		source, err := p.c.Source()
		if !p.c.Dir.Following() || err == nil && source.URL == "" || err != nil && p.client == nil {
			p.forget()
			sleep(ctx, glanceAtWho)
			continue
		}
		if err == nil {
			err = p.follow(source)
		} else {
			source = p.client.source
		}
		if err == nil {
			err = p.round(ctx, source)
		}
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errElsewhere) {
			pause.reset()
			continue
		}
		if err == nil {
			pause.reset()
			p.well(source)
			sleep(ctx, breath)
			continue
		}
		p.failed(source, err)
		p.remote.same = false // ask at once next time, and do not wait for a change
		wait := pause.next()
		var ahead *cadir.AheadError
		if errors.As(err, &ahead) || errors.Is(err, errMoved) {
			pause.reset() // it is not the source that fails
			wait = glanceAtWho
		}
		sleep(ctx, wait)
	}
	return nil
}

// follow makes a client for a source, unless it is the one there is.
func (p *Puller) follow(source Source) error {
	if p.client != nil && p.client.source == source {
		return nil
	}
	p.forget()
	c, err := newClient(source, p.c.TLS)
	if err == nil {
		p.client = c
	}
	return err
}

func (p *Puller) forget() {
	if p.client != nil {
		p.client.close()
	}
	p.client, p.remote = nil, remote{}
}

func (p *Puller) well(source Source) {
	p.c.Dir.NoteSync(source.Certname, nil)
	p.count(func(s *PullerStats) { s.Synced = time.Now() })
	if p.logged != "" {
		p.logged = ""
		p.c.Log.Info("the CA is the camaster's again", "camaster", source.Certname)
	}
}

func (p *Puller) failed(source Source, err error) {
	p.c.Dir.NoteSync(source.Certname, err)
	p.count(func(s *PullerStats) { s.Failures++ })
	if text := err.Error(); text != p.logged {
		p.logged = text
		p.c.Log.Warn("the CA is not the camaster's", "camaster", source.Certname, "error", err)
	}
}

// round asks for changes once, and takes them over. It returns nil when the cadir is the
// same as the source's.
func (p *Puller) round(ctx context.Context, source Source) error {
	ctx, done := while(ctx, func() bool {
		now, err := p.c.Source()
		return p.c.Dir.Following() && (err != nil || now == source)
	})
	defer done()
	wait := time.Duration(0)
	if p.remote.same {
		wait = p.c.Wait
	}
	if err := p.changes(ctx, wait); err != nil {
		return err
	}
	local, err := p.c.Dir.Look(ctx)
	if err == nil && local.Hash == p.remote.hash {
		p.remote.same = true
		return p.c.Dir.Recover(ctx)
	}
	p.remote.same = false
	return p.take(ctx)
}

// take fetches what is missing and replaces the set.
func (p *Puller) take(ctx context.Context) error {
	begun := time.Now()
	files := p.remote.files
	if err := p.fetchAll(ctx, files); err != nil {
		return err
	}
	done, err := p.c.Dir.Replace(ctx, files, p.remote.hash)
	if err != nil {
		if errors.Is(err, cadir.ErrNotFollowing) {
			return errElsewhere
		}
		return err
	}
	p.remote.same = true
	p.count(func(s *PullerStats) { s.Syncs++; s.Removed += uint64(done.Removed) })
	p.c.Log.Info("took over the camaster's CA", "camaster", p.client.source.Certname, "files", done.Files,
		"removed", done.Removed, "kept", done.Kept, "ms", time.Since(begun).Milliseconds())
	return nil
}

// changes brings remote up to date.
func (p *Puller) changes(ctx context.Context, wait time.Duration) error {
	query := url.Values{"wait": {wait.String()}}
	if p.remote.session != "" {
		query.Set("session", p.remote.session)
		query.Set("generation", strconv.FormatUint(p.remote.generation, 10))
	}
	err := p.client.do(ctx, http.MethodGet, changesPath, query, nil, wait, func(r *http.Response) error {
		return p.remote.read(r.Body)
	})
	if err != nil {
		var status *statusError
		if !errors.As(err, &status) {
			// What was half read is asked for whole.
			p.remote = remote{}
		}
		return err
	}
	return nil
}

// read takes an answer. What is not all there, or not what its hash says, is an error.
func (m *remote) read(body io.Reader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	next := func(v any) error {
		if !lines.Scan() {
			return errors.Join(io.ErrUnexpectedEOF, lines.Err())
		}
		return json.Unmarshal(lines.Bytes(), v)
	}
	var h head
	if err := next(&h); err != nil {
		return fmt.Errorf("the list of changes: %w", err)
	}
	if h.Files < 0 || h.Files > maxChanges || h.Session == "" {
		return fmt.Errorf("a list of %d files in session %.40q: %d are the most", h.Files, h.Session, maxChanges)
	}
	if !h.Full && h.Session != m.session {
		return errors.New("a list of changes to what is not known here")
	}
	changed := make([]cadir.File, 0, min(h.Files, 1000))
	for range h.Files {
		var f cadir.File
		if err := next(&f); err != nil {
			return fmt.Errorf("the list of changes: %w", err)
		}
		if most, ok := cadir.MaxSize(f.Path); !ok || f.Size < 0 || f.Size > most {
			return fmt.Errorf("%.300q of %d bytes is no file of a CA", f.Path, f.Size)
		}
		if n := len(changed); n > 0 && changed[n-1].Path >= f.Path {
			return fmt.Errorf("the list of changes has %q after %q", f.Path, changed[n-1].Path)
		}
		changed = append(changed, f)
	}
	if h.Full {
		m.files = changed
	} else {
		m.files = changes(m.files, changed, h.Removed)
	}
	if h.Full || h.Files > 0 || len(h.Removed) > 0 || h.Hash != m.hash {
		if hash := cadir.HashOf(m.files); hash != h.Hash {
			return fmt.Errorf("the list of changes leads to the hash %.12s, and %.12s was announced", hash, h.Hash)
		}
	}
	m.session, m.generation, m.hash = h.Session, h.Generation, h.Hash
	return nil
}

// changes leads from a sorted list to the next one, which is a new one.
func changes(files, changed []cadir.File, removed []string) []cadir.File {
	gone := make(map[string]bool, len(removed))
	for _, p := range removed {
		gone[p] = true
	}
	out := make([]cadir.File, 0, len(files)+len(changed))
	for len(files) > 0 || len(changed) > 0 {
		switch {
		case len(changed) == 0 || len(files) > 0 && files[0].Path < changed[0].Path:
			if !gone[files[0].Path] {
				out = append(out, files[0])
			}
			files = files[1:]
		default:
			if len(files) > 0 && files[0].Path == changed[0].Path {
				files = files[1:]
			}
			out, changed = append(out, changed[0]), changed[1:]
		}
	}
	return out
}
