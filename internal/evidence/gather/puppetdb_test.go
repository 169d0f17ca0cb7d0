package gather_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

func TestPuppetDB(t *testing.T) {
	const well = `{"state":"running","status":{"maintenance_mode?":false,"read_db_up?":true,"write_db_up?":true,"queue_depth":3}}`
	primary := &evidence.PostgreSQL{Role: "primary"}
	for _, c := range []struct {
		name           string
		simple, status http.HandlerFunc
		pg             *evidence.PostgreSQL
		want           evidence.PuppetDB
	}{
		{"on a primary", says(200, "running"), says(200, well), primary, evidence.PuppetDB{State: "running", Writes: true, Queue: 3}},
		{"on a standby it says that it can write", says(200, "running"), says(200, well), &evidence.PostgreSQL{Role: "standby"}, evidence.PuppetDB{State: "running", Queue: 3}},
		{"on a fenced primary", says(200, "running"), says(200, well), &evidence.PostgreSQL{Role: "primary", ReadOnly: true}, evidence.PuppetDB{State: "running", Queue: 3}},
		{"with its database elsewhere", says(200, "running"), says(200, well), nil, evidence.PuppetDB{State: "running", Writes: true, Queue: 3}},
		{"migrating", says(503, "starting"), says(503, `{"state":"starting","status":{"maintenance_mode?":true,"queue_depth":null}}`), primary, evidence.PuppetDB{State: "maintenance"}},
		{"without its database", says(503, "error"), says(503, `{"state":"error","status":{"read_db_up?":false,"write_db_up?":false,"queue_depth":9}}`), primary, evidence.PuppetDB{State: "error", Queue: 9, Error: "its database does not answer"}},
		{"an old one without details", says(200, "running"), says(404, "not found"), primary, evidence.PuppetDB{State: "running", Error: "its status: HTTP 404 not found"}},
		{"garbage", says(200, "running"), says(200, "<html>"), primary, evidence.PuppetDB{State: "running", Error: "its status is no JSON that is understood"}},
		{"a queue of less than nothing", says(200, "running"), says(200, `{"state":"running","status":{"queue_depth":-3}}`), nil, evidence.PuppetDB{State: "running"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			s := h.newService(h.id)
			s.on(simple, c.simple)
			s.on(pdb, c.status)
			h.PuppetDB, h.PuppetDBMode = s.url, "hot"
			if c.pg != nil {
				h.PostgreSQL = func(context.Context) *evidence.PostgreSQL { return c.pg }
			}
			c.want.Mode = "hot"
			if diff := cmp.Diff(&c.want, h.gatherer().Look(context.Background()).PuppetDB); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPuppetDBThatDoesNotRun(t *testing.T) {
	h := newHost(t)
	s := h.newService(h.id)
	h.PuppetDB, h.PuppetDBMode = s.url, "service"
	h.PuppetDB = "https://127.0.0.1:1" // nobody's, in all of 127.0.0.0/8
	want := &evidence.PuppetDB{Mode: "service", State: "stopped"}
	if diff := cmp.Diff(want, h.gatherer().Look(context.Background()).PuppetDB); diff != "" {
		t.Error(diff)
	}
}
