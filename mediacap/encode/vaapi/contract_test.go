package vaapi_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alcove-room/alcove/mediacap/encode/vaapi/vaapitest"
)

// difference is a field that we and FFmpeg's h264_vaapi, which real drivers know, tell the driver differently.
type difference struct{ ours, theirs, why string }

// differences is all of them. A field ends in " of IDR" or " of P".
var differences = map[string]difference{
	"sequence.level_idc":                                    {"31", "30", "the level depends on the format alone, and is never below what SDP announces"},
	"sequence.intra_period":                                 {"65536", "120", "key frames come on demand"},
	"sequence.intra_idr_period":                             {"65536", "120", "key frames come on demand"},
	"sequence.log2_max_frame_num_minus4":                    {"11", "4", "openh264's, so that it can take over with the same parameter sets"},
	"sequence.log2_max_pic_order_cnt_lsb_minus4":            {"12", "4", "openh264's, so that it can take over with the same parameter sets"},
	"sequence.aspect_ratio_info_present_flag":               {"0", "1", "samples are square without saying so, as in every other encoder of ours"},
	"sequence.aspect_ratio_idc":                             {"0", "1", "as above"},
	"sequence.timing_info_present_flag":                     {"0", "1", "time is RTP's business: the camera's rate is not constant"},
	"sequence.num_units_in_tick":                            {"0", "1", "as above"},
	"sequence.time_scale":                                   {"0", "60", "as above"},
	"sequence.log2_max_mv_length_horizontal":                {"16", "15", "the VUI is the one that the daemon writes"},
	"sequence.log2_max_mv_length_vertical":                  {"16", "15", "the VUI is the one that the daemon writes"},
	"rate control.window_size":                              {"500", "1000", "the rate holds over half a second"},
	"rate control.rc_flags.disable_frame_skip":              {"1", "0", "a camera that skips pictures looks broken"},
	"rate control.rc_flags.disable_bit_stuffing":            {"1", "0", "a still picture need not fill the line"},
	"rate control.ICQ_quality_factor":                       {"0", "1", "means nothing at a constant rate; FFmpeg forgets it there"},
	"max frame size":                                        {"present", "absent", "no key frame may hold the line up for more than half a second"},
	"CurrPic.TopFieldOrderCnt of P":                         {"2", "1", "the count goes by fields (8.2.1)"},
	"CurrPic.BottomFieldOrderCnt of P":                      {"2", "1", "the count goes by fields (8.2.1)"},
	"slice.pic_order_cnt_lsb of P":                          {"2", "1", "the count goes by fields (8.2.1)"},
	"slice.idr_pic_id of IDR":                               {"1", "0", "any number does that differs from the next IDR picture's (7.4.3)"},
	"slice.idr_pic_id of P":                                 {"1", "0", "says nothing in a P picture"},
	"slice.direct_spatial_mv_pred_flag of IDR":              {"0", "1", "says nothing without B pictures"},
	"slice.direct_spatial_mv_pred_flag of P":                {"0", "1", "says nothing without B pictures"},
	"picture.deblocking_filter_control_present_flag of IDR": {"1", "0", "openh264's, so that it can take over with the same parameter sets"},
	"picture.deblocking_filter_control_present_flag of P":   {"1", "0", "openh264's, so that it can take over with the same parameter sets"},
}

var traceLine = regexp.MustCompile(`^\[[^\]]*\]\[[^\]]*\]\s+([A-Za-z_][A-Za-z0-9_.\[\]]*) = (\S+)`)
var traceBlock = regexp.MustCompile(`\t--(VAEnc\w+)`)

// told reads libva's own trace: what the driver was told with the first picture and with the second.
func told(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "trace*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no trace: %v", err)
	}
	var text []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	names := map[string]string{"VAEncSequenceParameterBufferH264": "sequence", "VAEncMiscParameterRateControl": "rate control",
		"VAEncMiscParameterHRD": "buffer", "VAEncMiscParameterFrameRate": "frame rate", "VAEncPictureParameterBufferH264": "picture",
		"VAEncSliceParameterBufferH264": "slice"}
	// Numbers of objects are the driver's.
	skip := map[string]bool{"picture.coded_buf": true, "CurrPic.picture_id": true, "picture.pic_fields": true}
	out := map[string]string{}
	block, kind, pictures := "", "", 0
	for _, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.Contains(line, "va_TraceRenderPicture"):
			block = ""
		case strings.Contains(line, "va_TraceEndPicture"):
			block = ""
			if pictures++; pictures == 2 {
				return out
			}
		}
		if m := traceBlock.FindStringSubmatch(line); m != nil {
			block, kind = names[m[1]], ""
			if block == "picture" || block == "slice" {
				kind = []string{" of IDR", " of P"}[pictures]
			}
			if strings.Contains(m[1], "MaxFrameSize") {
				out["max frame size"] = "present"
			}
			continue
		}
		m := traceLine.FindStringSubmatch(line)
		if block == "" || m == nil || strings.Contains(line, "ret = ") || strings.HasPrefix(m[1], "buffers[") || m[1] == "type" || m[1] == "size" || m[1] == "num_elements" {
			if m != nil && strings.HasPrefix(m[1], "buffers[") {
				block = ""
			}
			continue
		}
		name := block + "." + m[1]
		if strings.HasPrefix(m[1], "CurrPic.") {
			name = m[1]
		}
		if !skip[name] {
			out[name+kind] = m[2]
		}
	}
	t.Fatalf("the trace has %d pictures", pictures)
	return nil
}

// TestContractAgainstFFmpeg compares what we tell a driver with what FFmpeg's h264_vaapi tells it, under libva's own
// trace and with drivers of both kinds. Every difference has its reason above; a reason that is not needed any more fails too.
func TestContractAgainstFFmpeg(t *testing.T) {
	if self := os.Getenv("CONTRACT_SELF"); self != "" {
		e := open(t, config(640, 360))
		run(t, e, 640, 360, 3, nil, nil)
		return
	}
	encoders, err := exec.Command("ffmpeg", "-nostdin", "-hide_banner", "-encoders").Output()
	if err != nil || !strings.Contains(string(encoders), "h264_vaapi") {
		t.Fatalf("this FFmpeg has no h264_vaapi to compare with: %v", err)
	}
	for _, headers := range []string{"driver", "app"} {
		t.Run(headers, func(t *testing.T) {
			log := vaapitest.NewLog(t)
			t.Setenv("FAKE_VA_HEADERS", headers)
			ours, theirs := t.TempDir(), t.TempDir()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				dir string
				cmd *exec.Cmd
			}{
				{ours, exec.Command(self, "-test.run", "^TestContractAgainstFFmpeg$")},
				{theirs, exec.Command("ffmpeg", "-nostdin", "-loglevel", "error", "-vaapi_device", vaapitest.Node, "-f", "lavfi", "-i", "testsrc2=s=640x360:r=30",
					"-frames:v", "3", "-vf", "format=nv12,hwupload", "-c:v", "h264_vaapi", "-profile:v", "constrained_baseline", "-coder", "cavlc",
					"-rc_mode", "CBR", "-b:v", "800k", "-maxrate", "800k", "-bufsize", "800k", "-bf", "0", "-async_depth", "1", "-f", "null", "-")},
			} {
				c.cmd.Env = append(os.Environ(), "CONTRACT_SELF=1", "LIBVA_TRACE="+filepath.Join(c.dir, "trace"))
				if out, err := c.cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			log.Clean()
			compare(t, told(t, ours), told(t, theirs))
		})
	}
}

func compare(t *testing.T, ours, theirs map[string]string) {
	t.Helper()
	used := map[string]bool{}
	all := maps.Clone(ours)
	maps.Copy(all, theirs)
	for _, field := range slices.Sorted(maps.Keys(all)) {
		a, b := ours[field], theirs[field]
		if a == b {
			continue
		}
		if a == "" {
			a = "absent"
		}
		if b == "" {
			b = "absent"
		}
		d, known := differences[field]
		if !known || d.ours != a || d.theirs != b {
			t.Errorf("%s: ours %s, FFmpeg's %s, without a reason", field, a, b)
			continue
		}
		used[field] = true
		t.Logf("%-55s ours %-7s FFmpeg's %-7s %s", field, a, b, d.why)
	}
	for field := range differences {
		if !used[field] {
			t.Errorf("%s: no difference, but a reason for one", field)
		}
	}
	t.Logf("%d fields compared, %d differ", len(all), len(used))
}
