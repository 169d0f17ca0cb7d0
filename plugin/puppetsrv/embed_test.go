package puppetsrv_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The plugin can be embedded without CoreDNS's command line: neither coremain nor
// what pulls it in is among its imports.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.Lines(string(out)) {
		switch strings.TrimSpace(pkg) {
		case "github.com/coredns/coredns/coremain", "github.com/coredns/coredns/plugin/metrics":
			t.Errorf("%s is imported", strings.TrimSpace(pkg))
		}
	}
	if !strings.Contains(string(out), "github.com/puppetsrv/puppetsrv/internal/zone") {
		t.Error("the list of imports is not the plugin's")
	}
}
