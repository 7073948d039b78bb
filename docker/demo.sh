#!/bin/sh
# The stack's demo: a video, a recording and a table become inputs; one job of each feature is submitted and awaited; and each job's
# signed callback must have been delivered. Exit status 0 when all three were.
set -eu
receiver=${RINGBACK_RECEIVER:-http://receiver:8080/}
inputs=/objects/$RINGBACK_BUCKET
mkdir -p "$inputs/demo"
started=$(date +%s)
say() { echo "[$(($(date +%s) - started)) s] $*"; }

ffmpeg -v error -y -f lavfi -i testsrc2=size=640x360:rate=25:duration=5 -f lavfi -i sine=frequency=440:duration=5 \
  -c:v mpeg4 -q:v 4 -c:a aac "$inputs/demo/clip.avi"
ffmpeg -v error -y -f s16le -ar 16000 -ac 1 -i /usr/share/pocketsphinx/test/data/goforward.raw "$inputs/demo/command.wav"
printf 'month,jobs\nJanuary,1\nFebruary,4\nMarch,9\n' >"$inputs/demo/figures.csv"
say "three inputs in $inputs/demo"

for queue in queue-1 queue-speech-1 queue-doc-process-1; do
  ringback callback set "$queue" --url "$receiver" --secret "$RINGBACK_SECRET" >/dev/null
done

# submit FEATURE TAG INPUT OPERATION: prints the job's id.
submit() { ringback job submit --feature "$1" --tag "$2" --object "demo/$3" --operation "$4"; }
output() { echo "<Output><Bucket>$RINGBACK_BUCKET</Bucket><Object>demo/out/$1</Object></Output>"; }
media=$(submit media Transcode clip.avi "<Transcode><Container><Format>mp4</Format></Container><Video><Codec>H.264</Codec><Width>320</Width></Video></Transcode>$(output clip.mp4)")
speech=$(submit speech SpeechRecognition command.wav "<SpeechRecognition/>$(output command.txt)")
document=$(submit document DocProcess figures.csv "<DocProcess><TgtType>pdf</TgtType></DocProcess>$(output figures.pdf)")
say "submitted $media $speech $document"
ringback job watch "$media" "$speech" "$document" || failed=yes
say "ended"

# delivered QUEUE ID: its callback has been accepted.
delivered() {
  for _ in $(seq 100); do
    ringback --json callback deliveries "$1" --job "$2" | grep -q '"state": *"DELIVERY_STATE_DELIVERED"' && return 0
    sleep 0.2
  done
  echo "the callback of $2 was not delivered:"
  ringback callback deliveries "$1" --job "$2"
  return 1
}
delivered queue-1 "$media" || failed=yes
delivered queue-speech-1 "$speech" || failed=yes
delivered queue-doc-process-1 "$document" || failed=yes
for file in clip.mp4 command.txt figures.pdf; do
  [ -s "$inputs/demo/out/$file" ] || { echo "demo/out/$file is missing"; failed=yes; }
done
[ -z "${failed:-}" ] || { say "failed"; exit 1; }
sed 's/^/   heard: /' "$inputs/demo/out/command.txt"
say "three jobs done, three signed callbacks delivered"
