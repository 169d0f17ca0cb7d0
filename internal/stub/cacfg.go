package stub

import (
	"fmt"
	"os"
	"strings"
)

// What ca.cfg names; see `puppetserver`'s services.d/ca.cfg.
const (
	caServiceOn  = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service"
	caServiceOff = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service"
)

// readCACfg says whether the CA service is on.
func readCACfg(path string) (bool, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("reading ca.cfg: %w", err)
	}
	var on, off bool
	for line := range strings.Lines(string(content)) {
		line, _, _ = strings.Cut(line, "#")
		switch strings.TrimSpace(line) {
		case caServiceOn:
			on = true
		case caServiceOff:
			off = true
		}
	}
	if on == off {
		// trapperkeeper ends with a service that is there twice, or not at all.
		return false, fmt.Errorf("%s: exactly one of %s and %s must be there", path, caServiceOn, caServiceOff)
	}
	return on, nil
}
