// Package puppet_test has Puppet itself run the module: on hosts made of network namespaces, with real
// addresses and an /etc of their own, so that nothing of the machine's is read or written.
package puppet_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/release"
)

// The module is part of a release, under its licence.
func TestMetadata(t *testing.T) {
	data, err := os.ReadFile("metadata.json")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Name, Version, License string
		Dependencies           []any
		Requirements           []struct {
			Name    string
			Version string `json:"version_requirement"`
		}
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("metadata.json: %v", err)
	}
	if m.Name != "puppetsrv-puppetsrv" || m.Version != release.Version {
		t.Errorf("metadata.json is of %s %s, want puppetsrv-puppetsrv %s, as internal/release says", m.Name, m.Version, release.Version)
	}
	licence, err := os.ReadFile("../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if m.License != "Apache-2.0" || !strings.Contains(string(licence), "Apache License\n                           Version 2.0") {
		t.Errorf("metadata.json says %s, LICENSE begins %.80q", m.License, licence)
	}
	if len(m.Dependencies) > 0 {
		t.Errorf("the module depends on %v: it is to run without others", m.Dependencies)
	}
	want := map[string]string{"puppet": ">= 7.0.0 < 10.0.0", "openvox": ">= 8.0.0 < 10.0.0"}
	for _, r := range m.Requirements {
		if want[r.Name] != r.Version {
			t.Errorf("requires %s %s, want %q", r.Name, r.Version, want[r.Name])
		}
		delete(want, r.Name)
	}
	if len(want) > 0 {
		t.Errorf("does not require %v", want)
	}
}
