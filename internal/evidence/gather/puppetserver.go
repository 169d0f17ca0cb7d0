package gather

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// puppetserver is asked what anybody may ask it (its auth.conf): the status service.
// That says whether Jetty is up and nothing of catalogs; see deepCheck.
type puppetserver struct {
	url    string
	client *client
	free   level
}

// states are the status service's words.
var states = []string{"running", "starting", "stopping", "error", "unknown"}

func (p *puppetserver) look(ctx context.Context) (e evidence.Puppetserver) {
	e.State, e.Detail = simple(ctx, p.client, p.url)
	if e.State != "running" {
		p.free = level{}
		return e
	}
	// 404: the service is not registered, which it is only where the CA is on.
	status, body, err := p.client.get(ctx, p.url, "/status/v1/simple/ca")
	switch {
	case err != nil:
		e.Detail = fmt.Sprintf("its CA service: %s", err)
	case status == http.StatusOK:
		e.CAService = true
	case status != http.StatusNotFound:
		e.Detail = fmt.Sprintf("its CA service: HTTP %d %s", status, short(body))
	}
	if status, body, err = p.client.get(ctx, p.url, "/status/v1/services/jruby-metrics?level=debug"); err == nil && status == http.StatusOK {
		e.JRubies, e.JRubiesFree = p.jrubies(body)
	}
	return e
}

// simple asks a trapperkeeper's status service: 200 "running", else 503 and a word.
func simple(ctx context.Context, c *client, url string) (state, detail string) {
	status, body, err := c.get(ctx, url, "/status/v1/simple")
	if err != nil {
		return "unreachable", err.Error()
	}
	word := string(body)
	for len(word) > 0 && (word[len(word)-1] == '\n' || word[len(word)-1] == '\r') {
		word = word[:len(word)-1]
	}
	switch known := slices.Contains(states, word); {
	case status == http.StatusOK && word == "running":
		return "running", ""
	case status == http.StatusServiceUnavailable && known && word != "running":
		return word, ""
	default:
		return "unknown", fmt.Sprintf("its status service answers HTTP %d %q", status, short(body))
	}
}

// jrubies understands /status/v1/services/jruby-metrics?level=debug. The figures are in
// a part called experimental: where they are not, nothing is known.
func (p *puppetserver) jrubies(body []byte) (all, free int) {
	var answer struct {
		Status struct {
			Experimental struct {
				Metrics struct {
					All  *float64 `json:"num-jrubies"`
					Free *float64 `json:"num-free-jrubies"`
				} `json:"metrics"`
			} `json:"experimental"`
		} `json:"status"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return 0, 0
	}
	m := answer.Status.Experimental.Metrics
	const most = 10_000
	if m.All == nil || m.Free == nil || !(*m.All >= 1) || !(*m.Free >= 0) || *m.All > most || *m.Free > *m.All {
		return 0, 0
	}
	all = int(*m.All)
	return all, p.free.next(*m.Free, float64(all))
}

// level is a figure that goes up and down with every request, made calm: a mean of the
// last looks, told anew only when it has moved by a good part of the whole. Evidence
// that is the same is not sent again.
type level struct {
	known bool
	mean  float64
	told  int
}

// next takes what was seen, of 0 to all, and returns what is told.
func (l *level) next(seen, all float64) int {
	const weight = 0.25 // of what was seen now
	if !l.known {
		*l = level{true, seen, int(math.Round(seen))}
		return l.told
	}
	const end = 0.25 // from it the ends are told exactly: none is free, or all are
	l.mean += weight * (seen - l.mean)
	moved := math.Abs(l.mean-float64(l.told)) > max(0.75, all/8)
	if moved || l.mean < end || l.mean > all-end {
		l.told = int(math.Round(l.mean))
	}
	return l.told
}
