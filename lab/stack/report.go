//go:build linux

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// reportFormat is the version of PuppetDB's command "store report" that Puppet 7 uses.
const reportFormat = 8

// report is a report of a run without changes, as the terminus of PuppetDB 7.12 sends it
// (puppet/reports/puppetdb.rb).
func report(certname, uuid string) (string, error) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	data, err := json.Marshal(map[string]any{
		"certname": certname, "environment": "production", "puppet_version": "7.23.0", "report_format": 12,
		"configuration_version": "lab", "start_time": now, "end_time": now, "producer_timestamp": now, "producer": certname,
		"resources": []any{}, "metrics": []any{}, "logs": []any{}, "status": "unchanged", "type": "agent",
		"noop": false, "noop_pending": false, "corrective_change": false,
		"transaction_uuid": uuid, "catalog_uuid": uuid, "cached_catalog_status": "not_used",
		"code_id": nil, "job_id": nil,
	})
	return string(data), err
}

// SendReport sends a report to the PuppetDB on a host under a name, as a master does.
// PuppetDB has it in its queue then.
func (r Requester) SendReport(ctx context.Context, to *Host, name, certname, uuid string) error {
	body, err := report(certname, uuid)
	if err != nil {
		return err
	}
	q := url.Values{
		"command": {"store_report"}, "version": {fmt.Sprint(reportFormat)}, "certname": {certname},
		"producer-timestamp": {time.Now().UTC().Format("2006-01-02T15:04:05.000Z")},
	}
	r.ContentType = "application/json"
	status, answer, err := r.Ask(ctx, to, "8081", name, http.MethodPost, "/pdb/cmd/v1?"+q.Encode(), body)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("PuppetDB on %s answers %d: %.200s", to.Short, status, answer)
	}
	return err
}

// Reports are the transactions of a certname whose reports a PuppetDB has in its database.
func (r Requester) Reports(ctx context.Context, to *Host, name, certname string) (map[string]bool, error) {
	q := url.Values{"query": {fmt.Sprintf(`reports[transaction_uuid]{certname = %q}`, certname)}}
	status, answer, err := r.Ask(ctx, to, "8081", name, http.MethodGet, "/pdb/query/v4?"+q.Encode(), "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("PuppetDB on %s answers %d: %.200s", to.Short, status, answer)
	}
	if err != nil {
		return nil, err
	}
	var all []struct {
		UUID string `json:"transaction_uuid"`
	}
	if err := json.Unmarshal([]byte(answer), &all); err != nil {
		return nil, fmt.Errorf("%w: %.200s", err, answer)
	}
	has := make(map[string]bool)
	for _, x := range all {
		has[x.UUID] = true
	}
	return has, nil
}

// Catalog has a master compile a host's own catalog, and returns it.
func (r Requester) Catalog(ctx context.Context, master *Host, certname string) (string, error) {
	facts, err := json.Marshal(map[string]any{"name": certname, "values": map[string]any{
		"clientcert": certname, "os": map[string]any{"family": "Debian", "name": "Debian"}, "datacenter": r.From.Datacenter,
	}})
	if err != nil {
		return "", err
	}
	body := url.Values{"environment": {"production"}, "facts_format": {"application/json"}, "facts": {url.QueryEscape(string(facts))}}
	r.ContentType = "application/x-www-form-urlencoded"
	status, answer, err := r.Ask(ctx, master, "8140", master.FQDN(), http.MethodPost, "/puppet/v3/catalog/"+certname, body.Encode())
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answers %d: %.300s", master.Short, status, strings.TrimSpace(answer))
	}
	return answer, err
}
