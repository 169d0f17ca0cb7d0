package gather

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// puppetdb is asked for its status, and the length of its queue.
type puppetdb struct {
	url    string
	client *client
}

// puppetdbAnswer is what it said.
type puppetdbAnswer struct {
	state   string
	err     string
	queue   int
	writeDB bool // what it says of its database, which is not much
}

func (p *puppetdb) look(ctx context.Context) *puppetdbAnswer {
	a := &puppetdbAnswer{}
	a.state, a.err = simple(ctx, p.client, p.url)
	if a.state == "unreachable" {
		if a.err == "connection refused" { // nobody listens there
			a.state, a.err = "stopped", ""
		}
		return a
	}
	status, body, err := p.client.get(ctx, p.url, "/status/v1/services/puppetdb-status")
	// While it is not well the status comes with 503.
	if err != nil || status != http.StatusOK && status != http.StatusServiceUnavailable {
		if a.err == "" {
			a.err = "its status: " + answered(status, body, err)
		}
		return a
	}
	var s struct {
		State  string `json:"state"`
		Status struct {
			Maintenance bool `json:"maintenance_mode?"`
			Queue       *int `json:"queue_depth"` // null while it starts
			WriteDB     bool `json:"write_db_up?"`
			ReadDB      bool `json:"read_db_up?"`
		} `json:"status"`
	}
	if err := json.Unmarshal(body, &s); err != nil {
		a.err = "its status is no JSON that is understood"
		return a
	}
	a.writeDB = s.Status.WriteDB
	if q := s.Status.Queue; q != nil && *q >= 0 {
		a.queue = *q
	}
	switch {
	case s.Status.Maintenance: // migrations, at its start
		a.state = "maintenance"
	case a.state == "running" && slices.Contains(states, s.State):
		a.state = s.State
	}
	if a.state == "error" && a.err == "" && (!s.Status.ReadDB || !s.Status.WriteDB) {
		a.err = "its database does not answer"
	}
	return a
}

func answered(status int, body []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("HTTP %d %s", status, short(body))
}

// evidence is what follows. PuppetDB says that it can write on a standby too, for it
// asks its database for no more than a sum: PostgreSQL's role decides where it is known.
func (a *puppetdbAnswer) evidence(mode string, pg *evidence.PostgreSQL) *evidence.PuppetDB {
	e := &evidence.PuppetDB{Mode: mode, State: a.state, Queue: a.queue, Error: a.err}
	e.Writes = a.state == "running" && a.writeDB
	if pg != nil {
		e.Writes = e.Writes && pg.Role == "primary" && !pg.ReadOnly
	}
	return e
}
