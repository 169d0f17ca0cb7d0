package role

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// PuppetDB says how PuppetDB runs on a host.
type PuppetDB struct {
	// Hot: it runs on every host, against a read-only replica on a standby, and is open
	// when PostgreSQL is. Otherwise Start and Stop open and close it.
	Hot    bool
	URL    string       // of it, as https://m1.example.net:8081
	Client *http.Client // with the host's own certificate
	Start  Command
	Stop   Command
	// PostgreSQL is how its database is. PuppetDB's own status says that a standby can
	// write, because it asks for no more than an answer (puppetdb's scf/storage_utils.clj).
	// It may be nil where PuppetDB is not hot.
	PostgreSQL func() State
	Timeout    time.Duration // of Start until it answers, and of Stop; 0: 5 minutes
}

const (
	statusPath  = "/status/v1/simple"
	statusAgain = 100 * time.Millisecond // looks at a PuppetDB that starts
	// statusTime is how long a look waits for the answer: what else opens and closes
	// waits with it.
	statusTime = time.Second
)

type puppetdb struct{ PuppetDB }

// NewPuppetDB makes a service of p.
func NewPuppetDB(p PuppetDB) (Service, error) {
	switch {
	case p.URL == "" || p.Client == nil:
		return nil, errors.New("puppetdb: it needs a URL, and a client to ask there")
	case p.Hot && p.PostgreSQL == nil:
		return nil, errors.New("puppetdb: mode hot needs the role postgresql beside it: what PuppetDB says of itself does not tell a standby's database from a camaster's")
	case !p.Hot && (len(p.Start) == 0 || len(p.Stop) == 0):
		return nil, errors.New("puppetdb: mode service needs commands for start and stop")
	}
	if p.Timeout == 0 {
		p.Timeout = 5 * time.Minute
	}
	p.URL = strings.TrimSuffix(p.URL, "/")
	return &puppetdb{p}, nil
}

// Name is "puppetdb".
func (p *puppetdb) Name() string { return "puppetdb" }

// Stateless says that what PuppetDB knows is in PostgreSQL.
func (p *puppetdb) Stateless() {}

// Observe asks PuppetDB how it is, and PostgreSQL what it can do. A hot one is not asked
// while PostgreSQL is not open: its word would change nothing, and one whose database is
// closed needs seconds to find it (PuppetDB 7.12.1: two to three), in which the host is
// closing, and somebody else waits to open.
func (p *puppetdb) Observe(ctx context.Context) Observation {
	var o Observation
	if p.Hot {
		o.State = p.PostgreSQL()
		o.Detail = fmt.Sprintf("PostgreSQL is %s", o.State)
		if o.State != Open {
			return o
		}
		o.Detail += "; "
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	word, err := p.status(ctx)
	switch {
	case err == nil && word == "running":
		o.State = Open
	case err != nil && refused(err):
		word, o.State = "it does not run", Closed
	case err != nil && ctx.Err() != nil: // it hangs, or is busy
		word, o.State = fmt.Sprintf("it has not answered within %v", statusTime), Unknown
	case p.Hot:
		o.State = Closed
	default: // it starts, or stops
		o.State = Unknown
	}
	if err != nil && word == "" {
		word = err.Error()
	}
	o.Detail += word
	return o
}

// Plan starts or stops it where it is not hot.
func (p *puppetdb) Plan(o Observation, to State) ([]Step, error) {
	switch {
	case p.Hot && to != Open && (o.State == Open || o.State == Unknown):
		return nil, errors.New("it closes with PostgreSQL, which is not closed yet")
	case p.Hot:
		return nil, nil // it follows PostgreSQL
	case to == Open && o.State != Open:
		return []Step{
			{Name: "start", Detail: p.Start.String(), Timeout: p.Timeout, Run: command(p.Start)},
			{Name: "wait until it answers", Detail: "GET " + p.URL + statusPath, Timeout: p.Timeout, Run: p.answers},
		}, nil
	case to != Open && (o.State == Open || o.State == Unknown):
		return []Step{{Name: "stop", Detail: p.Stop.String(), Timeout: p.Timeout, Run: command(p.Stop)}}, nil
	}
	return nil, nil
}

// command runs c as a step.
func command(c Command) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		output, err := c.Run(ctx)
		return lastLine(output), err
	}
}

// answers waits until PuppetDB runs.
func (p *puppetdb) answers(ctx context.Context) (string, error) {
	ticker := time.NewTicker(statusAgain)
	defer ticker.Stop()
	last := errors.New("it was not asked")
	for {
		word, err := p.status(ctx)
		switch {
		case err == nil && word == "running":
			return word, nil
		case err == nil:
			last = fmt.Errorf("it is %s", word)
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}

// status is the word of PuppetDB's status service: running, starting, stopping, error,
// unknown or maintenance.
func (p *puppetdb) status(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+statusPath, nil)
	if err != nil {
		return "", fmt.Errorf("asking PuppetDB: %w", err)
	}
	resp, err := p.Client.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking PuppetDB: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return "", fmt.Errorf("asking PuppetDB: %w", err)
	}
	word := strings.TrimSpace(string(body))
	switch {
	case resp.StatusCode == http.StatusOK && word == "running":
		return word, nil
	case resp.StatusCode == http.StatusServiceUnavailable && word != "" && word != "running" && !strings.ContainsAny(word, " <{"):
		return word, nil
	}
	return "", fmt.Errorf("asking PuppetDB: GET %s: %s", statusPath, resp.Status)
}

// refused reports whether nobody listens there.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
