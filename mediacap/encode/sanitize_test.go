package encode

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alcove-room/alcove/mediacap/encode/vaapi/vaapitest"
)

// TestSanitized builds every bridge to C, and the fake driver, with AddressSanitizer, its leak checker and the checker
// of undefined behaviour, and runs them through starts, sizes and failures.
func TestSanitized(t *testing.T) {
	dir, sources := t.TempDir(), "vaapi/vaapitest/testdata"
	sanitize := []string{"-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"}
	driver := append([]string{"-shared", "-fPIC", "-o", filepath.Join(dir, "fake_drv_video.so"), filepath.Join(sources, "fake_drv_video.c")}, sanitize...)
	if err := vaapitest.Compile(driver, "libva", "libdrm", "openh264"); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sanitize")
	// The shim is part of the program, which exports it to libva.
	main := append([]string{"-rdynamic", "-o", program, filepath.Join(sources, "sanitize.c"), filepath.Join(sources, "drm_shim.c"),
		"vaapi/va.c", "vaapi/headers.c", "openh264/bridge.c", "vpx/vp8.c"}, sanitize...)
	if err := vaapitest.Compile(main, "libva", "libva-drm", "libdrm", "openh264", "vpx"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LD_PRELOAD=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "LIBVA_DRIVERS_PATH="+dir, "LIBVA_DRIVER_NAME=fake", "LIBVA_MESSAGING_LEVEL=0",
		"ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=23")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
