package gather_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

func TestMetrics(t *testing.T) {
	h := newHost(t)
	s := h.puppetserver()
	s.on(simpleCA, says(200, "running"))
	h.CA = func(context.Context) *evidence.CA {
		return &evidence.CA{Mode: "hot", Sealed: true, Complete: true, Signed: 12, Synced: time.Now().Add(-time.Minute),
			CRL: &evidence.CRL{NextUpdate: time.Unix(2e9, 0)}, Error: "cut"}
	}
	h.PostgreSQL = func(context.Context) *evidence.PostgreSQL {
		return &evidence.PostgreSQL{Role: "standby", Timeline: 3, Received: 100, PrimaryWritten: 150, Streaming: true, Current: time.Now()}
	}
	h.Role = func() *evidence.Role {
		return &evidence.Role{State: evidence.Closed, Former: true, Services: []evidence.Service{{Name: "ca", State: "closed"}}}
	}
	g := h.gatherer()
	if m := values(t, g.Collector()); len(m) != 0 {
		t.Errorf("before the first look: %v", m)
	}
	g.Look(context.Background())
	got := values(t, g.Collector())
	for name, want := range map[string]float64{
		"ca_complete": 1, "ca_sealed": 1, "ca_signed_certificates": 12, "ca_crl_next_update_timestamp_seconds": 2e9,
		`part_failing{part="ca"}`: 1, `part_failing{part="certificate"}`: 0, `part_failing{part="crl"}`: 0,
		`part_failing{part="postgresql"}`: 0, `part_failing{part="puppetserver"}`: 0, `look_late{part="ca"}`: 0,
		"postgresql_lag_bytes": 50, "postgresql_timeline": 3, "postgresql_streaming": 1, "postgresql_read_only": 0,
		`postgresql_role{role="primary"}`: 0, `postgresql_role{role="standby"}`: 1,
		"puppetserver_up": 1, "puppetserver_ca_service": 1, "puppetserver_compiles": 1, "puppetserver_jrubies": 4, "puppetserver_jrubies_free": 4,
		"role_former": 1, `role_state{state="closed"}`: 1, `role_state{state="open"}`: 0,
		`service_state{service="ca",state="closed"}`: 1, `service_state{service="ca",state="open"}`: 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %g (%t), not %g", name, v, ok, want)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "puppetdb") {
			t.Errorf("%s on a host without PuppetDB", name)
		}
	}
	if v := got["ca_sync_age_seconds"]; v < 60 || v > 120 {
		t.Errorf("the CA's age is %g s", v)
	}
	if v := got["crl_next_update_timestamp_seconds"]; v < float64(time.Now().Unix()) {
		t.Errorf("the CRL ends at %g", v)
	}
	if v, ok := got["postgresql_lag_seconds"]; !ok || v > 60 {
		t.Errorf("the standby is %g s behind", v)
	}
}

// values are the metrics by name, without the prefix and with their labels.
func values(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]float64)
	for _, f := range families {
		for _, one := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "puppetsrv_member_")
			var labels []string
			for _, l := range one.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			m[name] = one.GetGauge().GetValue()
		}
	}
	return m
}

// The man page names every metric, and none that does not exist.
func TestManPageNamesTheMetrics(t *testing.T) {
	const page = "../../../cmd/puppetsrv-member/README.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	g := newHost(t).gatherer()
	descs := make(chan *prometheus.Desc, 100)
	g.Collector().Describe(descs)
	close(descs)
	var names []string
	for d := range descs {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		names = append(names, name)
		if !strings.Contains(string(data), "`"+name+"`") && !strings.Contains(string(data), "`"+name+"{") {
			t.Errorf("%s does not name %s", page, name)
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %d metrics", len(names))
	}
}
