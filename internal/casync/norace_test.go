//go:build !race

package casync_test

const raced = false
