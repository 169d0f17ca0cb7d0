package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// attempt bounds one question; a process that is just starting may take it and
// drop it.
const attempt = time.Second

// checkMaster returns nil if the master answers as an agent wants: TLS that is
// verified for its name, and running.
func (l layout) checkMaster(ctx context.Context, m master) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	pem, err := os.ReadFile(l.caPath())
	if err != nil {
		return fmt.Errorf("reading the CA certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, m.address.String())
		},
		DisableKeepAlives: true,
	}
	names := []string{m.host}
	if l.targets == "service" {
		names = append(names, m.service)
	}
	for _, name := range names {
		url := fmt.Sprintf("https://%s:%d/status/v1/simple", name, m.address.Port())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("asking %s: %w", m.name, err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return fmt.Errorf("GET %s: %w", url, err)
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, 100))
		response.Body.Close()
		if err != nil {
			return fmt.Errorf("GET %s: %w", url, err)
		}
		if response.StatusCode != http.StatusOK || string(body) != "running" {
			return fmt.Errorf("GET %s: %s %q, want 200 running", url, response.Status, body)
		}
	}
	return nil
}

// checkNode returns what the node answers, once it answers the SRV question of
// every datacenter with all masters and has joined the nodes that run. At first
// the datacenter's own masters come first, and the node has looked at every master, so
// that what the guide says can be done at once; later somebody may have drained or killed
// what they like.
func (l layout) checkNode(ctx context.Context, n node, first bool, nodes []node) (seen string, err error) {
	for _, datacenter := range l.datacenters {
		name := srvName("_x-puppet", datacenter)
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), dns.TypeSRV)
		q.SetEdns0(1232, false)
		client := dns.Client{Timeout: attempt}
		r, _, err := client.ExchangeContext(ctx, q, n.dns.String())
		if err != nil {
			return "", fmt.Errorf("asking %v for %s SRV: %w", n.dns, name, err)
		}
		if r.Rcode != dns.RcodeSuccess || !r.Authoritative {
			return "", fmt.Errorf("asking %v for %s SRV: %s, authoritative %t", n.dns, name, dns.RcodeToString[r.Rcode], r.Authoritative)
		}
		got := targets(r)
		same := func(a, b target) bool { return a == b || !first && a.name == b.name }
		if want := l.targetsOf(datacenter); !slices.EqualFunc(got, want, same) {
			return "", fmt.Errorf("asking %v for %s SRV: %s; want %s", n.dns, name, show(got), show(want))
		}
		if datacenter == n.datacenter {
			seen = "answers " + show(got)
		}
	}
	return seen, l.checkStatus(ctx, n, first, nodes)
}

// checkStatus returns nil if the node's API answers that these nodes are alive, and, at
// first, that every master has shown it its certificate.
func (l layout) checkStatus(ctx context.Context, n node, first bool, nodes []node) error {
	client, err := admin.NewClient("unix://"+l.socketPath(n.name), admin.ClientOptions{Timeout: attempt})
	if err != nil {
		return err
	}
	defer client.Close()
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return fmt.Errorf("asking the API of %s: %w", n.name, err)
	}
	for _, other := range nodes {
		alive := slices.ContainsFunc(cluster.Members, func(m admin.Member) bool { return m.Name == other.host && m.State == "alive" })
		if !alive {
			return fmt.Errorf("asking the API of %s: %s is not in its cluster", n.name, other.host)
		}
	}
	if !first {
		return nil
	}
	masters, err := client.Masters(ctx)
	if err != nil {
		return fmt.Errorf("asking the API of %s: %w", n.name, err)
	}
	for _, m := range masters {
		if m.Certificate == nil {
			return fmt.Errorf("asking the API of %s: %s has not shown it its certificate", n.name, m.Host)
		}
	}
	return nil
}

// targets are the SRV records of an answer in the order of their names, which
// is the layout's.
func targets(r *dns.Msg) []target {
	var targets []target
	for _, rr := range r.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			targets = append(targets, target{strings.TrimSuffix(srv.Target, "."), srv.Port, srv.Priority})
		}
	}
	slices.SortFunc(targets, func(a, b target) int { return cmp.Compare(a.name, b.name) })
	return targets
}

func srvName(service, datacenter string) string {
	return service + "._tcp." + datacenter + "." + zoneName
}

// show writes targets in the order in which an agent tries them: "m1 m2 at 10,
// m3 m4 at 20".
func show(targets []target) string {
	if len(targets) == 0 {
		return "no target"
	}
	byPriority := make(map[uint16][]string)
	var priorities []uint16
	for _, t := range targets {
		if byPriority[t.priority] == nil {
			priorities = append(priorities, t.priority)
		}
		label, _, _ := strings.Cut(t.name, ".")
		byPriority[t.priority] = append(byPriority[t.priority], label)
	}
	slices.Sort(priorities)
	var parts []string
	for _, p := range priorities {
		parts = append(parts, fmt.Sprintf("%s at %d", strings.Join(byPriority[p], " "), p))
	}
	return strings.Join(parts, ", ")
}
