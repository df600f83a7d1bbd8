// The interactive 3D view of a report: surface, map points and cameras, drawn by three.js only when something moves.
"use strict";
(() => {
  const root = document.getElementById("viewer");
  const data = JSON.parse(document.getElementById("scene-data").textContent);
  const canvas = root.querySelector("canvas");
  const card = document.getElementById("camera-card");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const FOV = 45;
  THREE.ColorManagement.enabled = false; // colours are those of the photos, to be shown as they are

  function fromBase64(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  // The inverse of pipelines/report/packing.py: bytes by significance, differences from row to row.
  async function unpack(packed) {
    const stream = new Blob([fromBase64(packed.data)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const count = packed.rows * packed.columns;
    const numbers = new { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[packed.bytes](count);
    for (let plane = 0; plane < packed.bytes; plane++) {
      for (let i = 0; i < count; i++) numbers[i] |= planes[plane * count + i] << (8 * plane);
    }
    for (let i = packed.columns; i < count; i++) numbers[i] += numbers[i - packed.columns];
    return numbers;
  }

  async function geometryOf(part) {
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(await unpack(part.position), 3, true));
    if (part.uv) geometry.setAttribute("uv", new THREE.BufferAttribute(await unpack(part.uv), 2, true));
    if (part.normal) {
      const turned = (await unpack(part.normal)).map((value) => value - 128); // as bytes with a sign
      geometry.setAttribute("normal", new THREE.BufferAttribute(new Int8Array(turned.buffer), 3, true));
    }
    if (part.color) geometry.setAttribute("color", new THREE.BufferAttribute(await unpack(part.color), 3, true));
    if (part.index) geometry.setIndex(new THREE.BufferAttribute(await unpack(part.index), 1));
    return geometry;
  }

  // A material for the picture of each page of a texture; the triangles of a page follow one another.
  async function paintedWith(pages, geometry) {
    return Promise.all(pages.map(async (page, i) => {
      geometry.addGroup(page.start, page.count, i);
      const image = new Image();
      image.src = page.picture;
      await image.decode();
      const map = new THREE.Texture(image);
      map.flipY = false;
      map.anisotropy = 4;
      map.needsUpdate = true;
      return new THREE.MeshBasicMaterial({ map });
    }));
  }

  function placed(object, part) {
    object.position.fromArray(part.low);
    object.scale.setScalar(part.size);
    return object;
  }

  const up = new THREE.Vector3().fromArray(data.up);
  const scene = new THREE.Scene();
  const camera = new THREE.PerspectiveCamera(FOV, 1, data.size * 0.002, data.size * 50);
  camera.up.copy(up);
  let renderer, controls;
  let asked = false;
  const layers = {};
  const shading = { plain: null, shaded: null };

  function draw() {
    asked = false;
    if (renderer) renderer.render(scene, camera);
  }

  function redraw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  }

  function takeColors() {
    const style = getComputedStyle(root);
    scene.background = new THREE.Color(style.getPropertyValue("--canvas").trim());
    colors.camera.set(style.getPropertyValue("--frustum").trim());
    colors.chosen.set(style.getPropertyValue("--chosen").trim());
    paintCameras();
    redraw();
  }

  // ---- cameras -----------------------------------------------------------------------------------------------------

  const colors = { camera: new THREE.Color(), chosen: new THREE.Color() };
  const EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1, 5, 6, 6, 7]; // pyramid, and a roof that says what is up
  let chosen = -1;

  // World direction of a direction in a camera; turn is cam_from_world by rows.
  function toWorld(turn, x, y, z) {
    return new THREE.Vector3(
      turn[0] * x + turn[3] * y + turn[6] * z,
      turn[1] * x + turn[4] * y + turn[7] * z,
      turn[2] * x + turn[5] * y + turn[8] * z,
    );
  }

  function makeCameras() {
    const places = new Float32Array(data.cameras.length * EDGES.length * 3);
    data.cameras.forEach((one, i) => {
      const [w, h] = one.open;
      const f = data.frustum;
      const rays = [
        [0, 0, 0], [-w, -h, 1], [w, -h, 1], [w, h, 1], [-w, h, 1],
        [-0.5 * w, -1.12 * h, 1], [0, -1.45 * h, 1], [0.5 * w, -1.12 * h, 1],
      ];
      const corners = rays.map((ray) =>
        toWorld(one.turn, ray[0] * f, ray[1] * f, ray[2] * f).add(new THREE.Vector3().fromArray(one.centre)),
      );
      one.middle = corners[1].clone().add(corners[3]).multiplyScalar(0.5);
      one.place = corners[0];
      EDGES.forEach((corner, k) => corners[corner].toArray(places, (i * EDGES.length + k) * 3));
    });
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(places, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(places.length), 3));
    return new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ vertexColors: true }));
  }

  function paintCameras() {
    if (!layers.cameras) return;
    const attribute = layers.cameras.geometry.getAttribute("color");
    for (let i = 0; i < attribute.count; i++) {
      const color = Math.floor(i / EDGES.length) === chosen ? colors.chosen : colors.camera;
      attribute.setXYZ(i, color.r, color.g, color.b);
    }
    attribute.needsUpdate = true;
  }

  // The camera drawn nearest to a place on the canvas; -1 when none is near.
  function cameraAt(x, y, reach) {
    if (!layers.cameras || !layers.cameras.visible) return -1;
    const { clientWidth: width, clientHeight: height } = canvas;
    let best = -1;
    let least = reach;
    const seen = new THREE.Vector3();
    data.cameras.forEach((one, i) => {
      for (const spot of [one.place, one.middle]) {
        seen.copy(spot).project(camera);
        if (seen.z < -1 || seen.z > 1) continue;
        const away = Math.hypot((seen.x * 0.5 + 0.5) * width - x, (0.5 - seen.y * 0.5) * height - y);
        if (away < least) {
          least = away;
          best = i;
        }
      }
    });
    return best;
  }

  function choose(index) {
    chosen = index;
    paintCameras();
    redraw();
    card.hidden = index < 0;
    if (index < 0) return;
    const one = data.cameras[index];
    const picture = one.photo === undefined ? null : document.getElementById(`photo-${one.photo}`);
    const shown = card.querySelector("img");
    shown.hidden = !picture;
    if (picture) {
      shown.src = picture.src;
      shown.alt = `Photo ${one.name}`;
    } else {
      shown.removeAttribute("src");
    }
    card.querySelector(".name").textContent = one.name;
    card.querySelector(".facts").textContent =
      `${one.points.toLocaleString("en")} map points` + (picture ? "" : " · no picture in this report");
    card.dataset.camera = String(index);
  }

  // ---- moving ------------------------------------------------------------------------------------------------------

  function moveTo(eye, target, fov) {
    const from = [camera.position.clone(), controls.target.clone(), camera.fov];
    const started = performance.now();
    const step = (now) => {
      const t = calm.matches ? 1 : Math.min((now - started) / 500, 1);
      const s = t * t * (3 - 2 * t);
      camera.position.lerpVectors(from[0], eye, s);
      controls.target.lerpVectors(from[1], target, s);
      camera.fov = from[2] + (fov - from[2]) * s;
      camera.updateProjectionMatrix();
      controls.update();
      draw();
      if (t < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  // As near as it can be with the middle of the scene and most cameras in sight, whatever the shape of the canvas.
  function startView() {
    const target = new THREE.Vector3().fromArray(data.target);
    const direction = new THREE.Vector3().fromArray(data.direction);
    const probe = new THREE.PerspectiveCamera(FOV, camera.aspect, camera.near, camera.far);
    probe.up.copy(up);
    const corners = data.in_sight.map((corner) => new THREE.Vector3().fromArray(corner));
    const fits = (distance) => {
      probe.position.copy(target).addScaledVector(direction, distance);
      probe.lookAt(target);
      probe.updateMatrixWorld();
      return corners.every((corner) => {
        const seen = corner.clone().project(probe);
        return seen.z < 1 && Math.abs(seen.x) < 0.94 && seen.y < 0.86 && seen.y > -0.94;
      });
    };
    let near = data.size * 0.1;
    let far = data.size * 8;
    for (let i = 0; i < 24; i++) {
      const middle = (near + far) / 2;
      if (fits(middle)) far = middle;
      else near = middle;
    }
    return [target.clone().addScaledVector(direction, far), target, FOV];
  }

  function lookThrough(index) {
    const one = data.cameras[index];
    const ahead = toWorld(one.turn, 0, 0, 1);
    const reach = Math.max(ahead.dot(new THREE.Vector3().fromArray(data.target).sub(one.place)), data.size * 0.2);
    const half = Math.max(one.open[1], one.open[0] / camera.aspect);
    moveTo(one.place.clone(), one.place.clone().addScaledVector(ahead, reach), (2 * Math.atan(half) * 180) / Math.PI);
  }

  function orbit(sideways, upwards) {
    const away = camera.position.clone().sub(controls.target);
    away.applyAxisAngle(up, sideways);
    const axis = new THREE.Vector3().crossVectors(up, away).normalize();
    const tilted = away.clone().applyAxisAngle(axis, -upwards);
    const angle = tilted.angleTo(up);
    if (angle > 0.05 && angle < Math.PI - 0.05) away.copy(tilted);
    camera.position.copy(controls.target).add(away);
    controls.update();
    redraw();
  }

  function nearer(factor) {
    camera.position.sub(controls.target).multiplyScalar(factor).add(controls.target);
    controls.update();
    redraw();
  }

  function resize() {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    draw();
  }

  // ---- controls of the page ----------------------------------------------------------------------------------------

  const KEYS = {
    ArrowLeft: () => orbit(-0.1, 0), ArrowRight: () => orbit(0.1, 0),
    ArrowUp: () => orbit(0, 0.1), ArrowDown: () => orbit(0, -0.1),
    "+": () => nearer(0.88), "=": () => nearer(0.88), "-": () => nearer(1.14), 0: () => moveTo(...startView()),
    Escape: () => choose(-1),
  };

  function shade(shaded) {
    const mesh = layers.mesh;
    if (shaded && !mesh.geometry.hasAttribute("normal")) mesh.geometry.computeVertexNormals();
    mesh.material = shaded ? shading.shaded : shading.plain;
    redraw();
  }

  function connect() {
    for (const button of root.querySelectorAll("[data-layer]")) {
      const name = button.dataset.layer;
      const toggle = name === "shading" ? shade : (on) => { layers[name].visible = on; redraw(); };
      button.disabled = !layers[name === "shading" ? "mesh" : name];
      button.hidden = button.disabled;
      if (name === "shading" && layers.mesh && !shading.plain) button.hidden = true;
      if (!button.disabled && name !== "shading") toggle(button.getAttribute("aria-pressed") === "true");
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        toggle(on);
      });
    }
    const count = data.cameras.length;
    const actions = {
      reset: () => { choose(-1); moveTo(...startView()); },
      close: () => { choose(-1); canvas.focus({ preventScroll: true }); },
      look: () => lookThrough(chosen),
      next: () => choose((chosen + 1) % count),
      previous: () => choose((chosen + count - 1) % count),
      enlarge: () => {
        const photo = data.cameras[chosen].photo;
        if (photo !== undefined) document.dispatchEvent(new CustomEvent("show-photo", { detail: photo }));
      },
    };
    for (const button of root.querySelectorAll("[data-action]")) {
      button.addEventListener("click", actions[button.dataset.action]);
    }
    let pressed = null;
    canvas.addEventListener("pointerdown", (event) => {
      pressed = [event.offsetX, event.offsetY];
      controls.enableZoom = true; // from now on the wheel zooms here instead of scrolling the page
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!pressed || Math.hypot(event.offsetX - pressed[0], event.offsetY - pressed[1]) > 6) return;
      choose(cameraAt(event.offsetX, event.offsetY, event.pointerType === "touch" ? 30 : 18));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) return;
      canvas.classList.toggle("pointing", cameraAt(event.offsetX, event.offsetY, 14) >= 0);
    });
    canvas.addEventListener("pointerleave", () => { controls.enableZoom = false; });
    canvas.addEventListener("keydown", (event) => {
      const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", takeColors);
    new ResizeObserver(resize).observe(canvas);
  }

  function fail(reason) {
    root.dataset.state = "failed";
    root.querySelector(".problem").textContent = reason;
    root.querySelector(".problem").hidden = false;
  }

  async function start() {
    if (!window.DecompressionStream) return fail("This browser is too old for the 3D view; everything else is below.");
    try {
      renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    } catch (error) {
      return fail("This browser can't draw in 3D (WebGL is missing or switched off); everything else is below.");
    }
    renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
    if (data.mesh) {
      const geometry = await geometryOf(data.mesh);
      if (data.mesh.pages) shading.plain = await paintedWith(data.mesh.pages, geometry);
      else if (geometry.hasAttribute("color")) shading.plain = new THREE.MeshBasicMaterial({ vertexColors: true });
      shading.shaded = new THREE.MeshLambertMaterial({ color: 0xd8d4cc });
      layers.mesh = placed(new THREE.Mesh(geometry, shading.plain ?? shading.shaded), data.mesh);
      if (!shading.plain) geometry.computeVertexNormals();
      const light = new THREE.DirectionalLight(0xffffff, 2.2);
      camera.add(light);
      scene.add(camera, new THREE.AmbientLight(0xffffff, 1.1));
    }
    for (const name of ["cloud", "points"]) {
      if (!data[name]) continue;
      const geometry = await geometryOf(data[name]);
      const size = name === "cloud" ? 2.2 : 2.6;
      const material = new THREE.PointsMaterial({ size, sizeAttenuation: false, vertexColors: !!data[name].color });
      layers[name] = placed(new THREE.Points(geometry, material), data[name]);
    }
    if (data.cameras.length) layers.cameras = makeCameras();
    scene.add(...Object.values(layers));
    controls = new THREE.OrbitControls(camera, canvas);
    controls.enableZoom = false;
    controls.maxDistance = data.size * 20;
    controls.minDistance = data.size * 0.01;
    controls.addEventListener("change", redraw);
    resize();
    const [eye, target] = startView();
    camera.position.copy(eye);
    controls.target.copy(target);
    controls.update();
    connect();
    takeColors();
    draw();
    root.dataset.state = "ready";
  }

  start().catch((error) => {
    fail("The 3D view could not be made from this file's data.");
    throw error;
  });
})();
