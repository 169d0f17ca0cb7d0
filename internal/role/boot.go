package role

import (
	"fmt"
	"os"
	"strings"
)

// BootID is the kernel's name for this boot of the host, by Linux's random(4).
func BootID() (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading which boot of the host this is: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if id == "" {
		return "", fmt.Errorf("reading which boot of the host this is: %s is empty", path)
	}
	return id, nil
}
