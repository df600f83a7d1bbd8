// The parts of three.js that viewer.js uses. See README.md on how three.min.js is made from this.
export {
  AmbientLight, BufferAttribute, BufferGeometry, Color, ColorManagement, DirectionalLight, FrontSide, HemisphereLight,
  LinearSRGBColorSpace, LineBasicMaterial, LineSegments, Mesh, MeshBasicMaterial, MeshLambertMaterial, PerspectiveCamera,
  Points, PointsMaterial, Scene, Texture, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
