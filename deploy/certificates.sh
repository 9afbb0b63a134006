#!/bin/sh
# Makes a private CA and certificates that it signs, for TLS between services and for trying out TLS at the gateway.
#   deploy/certificates.sh FOLDER NAME[,OTHER_NAME_OR_IP...] ...
# for instance
#   deploy/certificates.sh /etc/tidemill scheduler-1 scheduler-2 gateway,gateway.example.org worker
# Writes FOLDER/ca.pem and ca-key.pem, and for each NAME NAME.pem and NAME-key.pem, valid for localhost, 127.0.0.1 and the
# names given. Run it again with the same FOLDER to renew: the CA stays, and running processes take up the new files.
# Keep ca-key.pem off the machines that serve: whoever has it can pose as any of them.
# DAYS is how long certificates last (default 90; the CA ten years).
set -eu
umask 077

[ $# -ge 2 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
folder=$1
shift
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

new_key() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

if [ ! -e "$folder/ca.pem" ]; then
  new_key "$folder/ca-key.pem"
  openssl req -x509 -new -key "$folder/ca-key.pem" -days 3650 -subj "/CN=Tidemill private CA" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$folder/ca.pem"
fi

for names in "$@"; do
  name=${names%%,*}
  alternatives="DNS:localhost,IP:127.0.0.1"
  for one in $(printf '%s' "$names" | tr ',' ' '); do
    case $one in
      *:* | [0-9]*.[0-9]*.[0-9]*.[0-9]*) alternatives="$alternatives,IP:$one" ;;
      *) alternatives="$alternatives,DNS:$one" ;;
    esac
  done
  new_key "$work/key.pem"
  openssl req -new -key "$work/key.pem" -subj "/CN=$name" -out "$work/request.pem"
  printf '%s\n' "subjectAltName=$alternatives" "extendedKeyUsage=serverAuth,clientAuth" "basicConstraints=critical,CA:FALSE" \
    > "$work/extensions"
  openssl x509 -req -in "$work/request.pem" -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" -days "${DAYS:-90}" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/extensions" -out "$work/certificate.pem" 2> /dev/null
  cp "$work/key.pem" "$folder/.$name-key.pem"
  cp "$work/certificate.pem" "$folder/.$name.pem"
  # Each by a rename; a pair that does not fit for the moment between them is passed over by who reads it.
  mv "$folder/.$name-key.pem" "$folder/$name-key.pem"
  mv "$folder/.$name.pem" "$folder/$name.pem"
done
