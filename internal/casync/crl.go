package casync

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// CRLConfig is what a CRLFollower needs.
type CRLConfig struct {
	Path   string                 // the host's own CRL, which puppetserver goes by: hostcrl
	CA     string                 // the host's CA bundle: localcacert
	Source func() (Source, error) // called often
	Self   string                 // the certname whose CRL is Local
	Local  string                 // the CA's own CRL on this host; "": there is none
	TLS    *tls.Config            // own certificate and the CA's; the server's name is set here
	Wait   time.Duration          // that a request is held at the source; 0: 10 s
	Log    *slog.Logger           // nil: none
}

// CRLFollower keeps a master's CRL as the camaster's. puppetserver reads the file again
// by itself when it is replaced.
type CRLFollower struct {
	c      CRLConfig
	client *client
	local  os.FileInfo // of the CA's own CRL, when it was taken over
	logged string

	mu    sync.Mutex
	stats CRLStats
}

// CRLStats are of the newest CRL, and since the start.
type CRLStats struct {
	Updates  uint64 // of the file
	Failures uint64
	Same     time.Time // when it was last known to be the camaster's
	Error    string    // why it is not now
}

// NewCRLFollower checks a configuration.
func NewCRLFollower(c CRLConfig) (*CRLFollower, error) {
	if !filepath.IsAbs(c.Path) || !filepath.IsAbs(c.CA) || c.Source == nil || c.TLS == nil {
		return nil, errors.New("following the camaster's CRL: it needs the absolute paths of the host's CRL and CA, whom to follow, and TLS")
	}
	if c.Wait <= 0 {
		c.Wait = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &CRLFollower{c: c}, nil
}

// Stats is safe to be called at any time.
func (f *CRLFollower) Stats() CRLStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Run follows whoever is to be followed, until ctx ends. With any failure the file stays
// as it is.
func (f *CRLFollower) Run(ctx context.Context) error {
	defer f.forget()
	var pause backoff
	for ctx.Err() == nil {
		source, err := f.c.Source()
		switch {
		case err != nil && f.client == nil, err == nil && source.URL == "" && (f.c.Local == "" || !strings.EqualFold(source.Certname, f.c.Self)):
			f.forget()
			sleep(ctx, glanceAtWho)
			continue
		case err != nil:
			source, err = f.client.source, nil // as long as it is not known to be another
		}
		if source.URL == "" || strings.EqualFold(source.Certname, f.c.Self) && f.c.Local != "" {
			f.forget()
			err = f.copyLocal(ctx)
		} else {
			f.local = nil
			if err = f.follow(source); err == nil {
				err = f.round(ctx, source)
			}
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errElsewhere):
			pause.reset()
		case err != nil:
			f.failed(err)
			sleep(ctx, pause.next())
		default:
			pause.reset()
			f.well()
			sleep(ctx, breath)
		}
	}
	return nil
}

func (f *CRLFollower) follow(source Source) error {
	if f.client != nil && f.client.source == source {
		return nil
	}
	f.forget()
	c, err := newClient(source, f.c.TLS)
	if err == nil {
		f.client = c
	}
	return err
}

func (f *CRLFollower) forget() {
	if f.client != nil {
		f.client.close()
	}
	f.client = nil
}

func (f *CRLFollower) well() {
	f.mu.Lock()
	f.stats.Same, f.stats.Error = time.Now(), ""
	f.mu.Unlock()
	f.logged = ""
}

func (f *CRLFollower) failed(err error) {
	text := err.Error()
	f.mu.Lock()
	f.stats.Failures++
	f.stats.Error = text
	f.mu.Unlock()
	if text != f.logged {
		f.logged = text
		f.c.Log.Warn("the host's CRL is not the camaster's", "path", f.c.Path, "error", err)
	}
}

// round asks once for a CRL other than the host's.
func (f *CRLFollower) round(ctx context.Context, source Source) error {
	ctx, done := while(ctx, func() bool {
		now, err := f.c.Source()
		return err != nil || now == source
	})
	defer done()
	query := url.Values{"wait": {f.c.Wait.String()}}
	old, err := readCRL(f.c.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		query.Set("known", cadir.Sum(sha256.Sum256(old)).String())
	}
	return f.client.do(ctx, http.MethodGet, crlPath, query, nil, f.c.Wait, func(r *http.Response) error {
		if r.StatusCode == http.StatusNotModified {
			return nil
		}
		data, err := io.ReadAll(io.LimitReader(r.Body, maxCRL+1))
		if err != nil {
			return err
		}
		if len(data) > maxCRL {
			return fmt.Errorf("a CRL of more than %d bytes", maxCRL)
		}
		if cadir.Sum(sha256.Sum256(data)).String() != r.Header.Get(sumHeader) {
			return errors.New("the CRL that came is not the one that was announced")
		}
		modified, _ := time.Parse(time.RFC3339Nano, r.Header.Get(timeHeader)) // zero: now
		return f.install(data, modified)
	})
}

// copyLocal takes over the CA's own CRL on this host if it has changed, and waits a
// moment. puppetserver does the same while its CA service is on.
func (f *CRLFollower) copyLocal(ctx context.Context) error {
	now, err := os.Stat(f.c.Local)
	if err != nil {
		return fmt.Errorf("the CA's CRL: %w", err)
	}
	if f.local == nil || !os.SameFile(now, f.local) || now.ModTime() != f.local.ModTime() || now.Size() != f.local.Size() {
		data, err := readCRL(f.c.Local)
		if err != nil {
			return err
		}
		if err := f.install(data, now.ModTime()); err != nil {
			return err
		}
		f.local = now
	}
	sleep(ctx, glanceAtWho)
	return nil
}

// install replaces the host's CRL, if data is a newer one of the host's CA.
func (f *CRLFollower) install(data []byte, modified time.Time) error {
	old, err := readCRL(f.c.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && bytes.Equal(old, data) {
		return nil
	}
	ca, err := os.ReadFile(f.c.CA)
	if err != nil {
		return fmt.Errorf("reading the host's CA: %w", err)
	}
	if err := acceptable(data, old, ca); err != nil {
		return fmt.Errorf("the camaster's CRL is not taken over: %w", err)
	}
	if err := replaceFile(f.c.Path, data, modified); err != nil {
		return fmt.Errorf("writing %s: %w", f.c.Path, err)
	}
	f.mu.Lock()
	f.stats.Updates++
	f.mu.Unlock()
	f.c.Log.Info("the host's CRL is the camaster's now", "path", f.c.Path)
	return nil
}
