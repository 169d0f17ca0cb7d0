package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// scrape returns what the prometheus plugin at addr serves of ours.
func scrape(t *testing.T, addr string) string {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	var ours []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "coredns_puppetsrv_") {
			ours = append(ours, line)
		}
	}
	return strings.Join(ours, "")
}

func TestMetrics(t *testing.T) {
	m := newMasters(t)
	listen := freePort(t).String()
	s := serve(t, strings.Replace(m.corefile("state "+m.dir+"/state"), "puppetsrv {", "prometheus "+listen+"\npuppetsrv {", 1))
	m.stub[0].Close()
	wrong, err := m.ca.Issue(stubNames("elsewhere.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	m.stub[1].SetIdentity(wrong)
	s.until(dc1, "m3@20 m4@20 m1@110")
	s.ask("puppet-camaster.example.net.", 1)
	s.ask("_x-puppet-ca._tcp.datacenter1.example.net.", 33)
	s.ask("m3.example.net.", 1)
	s.ask("www.example.net.", 1)
	got := scrape(t, listen)
	for _, want := range []string{
		`master_up{datacenter="datacenter1",master="m1.example.net",zone="example.net."} 0`,
		`master_up{datacenter="datacenter2",master="m3.example.net",zone="example.net."} 1`,
		`master_certificate_failing{datacenter="datacenter1",master="m1.example.net",zone="example.net."} 0`,
		`master_certificate_failing{datacenter="datacenter1",master="m2.example.net",zone="example.net."} 1`,
		`evidence_age_seconds{datacenter="datacenter2",master="m4.example.net",zone="example.net."} [0-9]`,
		`certificate_expiry_timestamp_seconds{datacenter="datacenter2",master="m4.example.net",zone="example.net."} [1-9]`,
		`zone_serial{zone="example.net."} [1-9]`,
		`state_durable{zone="example.net."} 1`,
		`answers_total{kind="tiers",server="[^"]*"} [1-9]`,
		`answers_total{kind="camaster",server="[^"]*"} [1-9]`,
		`answers_total{kind="ca",server="[^"]*"} [1-9]`,
		`answers_total{kind="address",server="[^"]*"} [1-9]`,
		`answers_total{kind="static",server="[^"]*"} [1-9]`,
		`probe_failures_total{reason="refused",zone="example.net."} [1-9]`,
		`probe_failures_total{reason="certificate",zone="example.net."} [1-9]`,
		`probe_duration_seconds_count{zone="example.net."} [1-9]`,
		`snapshot_build_duration_seconds_count{zone="example.net."} [1-9]`,
	} {
		if !regexp.MustCompile(`(?m)^coredns_puppetsrv_` + want).MatchString(got) {
			t.Errorf("no metric %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	// A reload with another configuration has two runtimes for a moment, and must
	// leave no metric of the old one.
	if err := s.reload(strings.Replace(m.corefile("ttl 7"), "puppetsrv {", "prometheus "+listen+"\npuppetsrv {", 1)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(scrape(t, listen), `master_up{datacenter="datacenter1",master="m1.example.net"`); n != 1 {
		t.Errorf("m1 is there %d times after a reload", n)
	}
}

// The names and help texts are as Prometheus wants them.
func TestMetricsLint(t *testing.T) {
	m := newMasters(t)
	serve(t, m.corefile())
	all, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var ours []*dto.MetricFamily
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "coredns_puppetsrv_") {
			ours = append(ours, f)
		}
	}
	if len(ours) < 5 {
		t.Fatalf("only %d metrics", len(ours))
	}
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestReady(t *testing.T) {
	m := newMasters(t)
	for _, s := range m.stub {
		s.Pause() // no probe ends by itself
	}
	listen := freePort(t).String()
	s := serve(t, strings.Replace(m.corefile("probe timeout 60s"), "puppetsrv {", "ready "+listen+"\npuppetsrv {", 1))
	if code := status(t, listen); code != http.StatusServiceUnavailable {
		t.Errorf("ready before any probe ended: %d", code)
	}
	if got := tiers(s.ask(dc1, 33)); got != "m1@10 m2@10 m3@20 m4@20" {
		t.Errorf("answers wait for the probes: %q", got)
	}
	for _, s := range m.stub {
		s.Resume()
	}
	for start := time.Now(); status(t, listen) != http.StatusOK; {
		if time.Since(start) > patience {
			t.Fatal("never ready")
		}
	}
}

func status(t *testing.T, addr string) int {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get(fmt.Sprintf("http://%s/ready", addr))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
